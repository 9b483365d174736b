//! Hosts that were restarted, data roots that went back, and two agents with one identity.
//!
//! What the server decides about who connects is tried case by case in `lib/scheduler/tests/engine/identity.rs`; here it is seen with real agents.

use anyhow::{Context, Result, ensure};
use api::Status;
use std::path::Path;
use std::process::Command;
use tests::{
    CrashPoint, Deed, End, Jobs, Part, Process, Random, Site, Tally, Way, ledger_job, on_site, seed,
    wait_until,
};

const JOBS: usize = 20;

fn boot(number: u8) -> [(String, String); 1] {
    [("LASTWORD_TEST_BOOT_ID".to_owned(), format!("{number:02x}").repeat(16))]
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    // More than once, if what a job-processor has there goes meanwhile.
    wait_until("a copy", || {
        os::disk::remove_tree(to)?;
        Ok(Command::new("cp").args(["-a", "--sparse=always"]).args([from, to]).status()?.success())
    })
}

fn trouble(site: &Site) -> Result<String> {
    Ok(site.client().agent("host1")?.trouble.unwrap_or_default())
}

#[test]
fn a_restart_of_the_host_is_told_of_what_ran_and_of_nothing_else() {
    on_site(|site| {
        let mut tally = Tally::new(
            Part::TimeAndIdentity,
            "what ran when its host was restarted is Unknown, everything else exact",
        );
        tally.seed(seed());
        let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
        let lost = site.client().submit(&site.gated()?)?;
        site.client().wait_running(lost)?;
        jobs.submit(site, &mut random, JOBS, None, 300)?;
        jobs.wait_ended(site)?; // some of them are not told yet
        let run = site.client().job(lost)?.runs[0].run_id.clone();
        let job_processor = site.agent()?.job_processor(&run)?.context("its job-processor")?;
        let pid = site.ledger().of(lost)?[0].pid;
        site.agent()?.vanish()?;
        job_processor.kill()?;
        let job = Process::find(pid).context("the job")?;
        job.kill()?;
        wait_until("all of the host to be gone", || Ok(!job.lives() && !job_processor.lives()))?;
        site.agent()?.start_with(&boot(0x5a))?;
        let told = site.client().wait(lost)?;
        let reason = told.reason.clone().unwrap_or_default();
        ensure!(told.status.0 == Status::Unknown && reason.contains("restarted"), "{told:#?}");
        jobs.submit(site, &mut random, JOBS, None, 300)?;
        tally.count("jobs compared", jobs.compare(site)? + 1);
        ensure!(trouble(site)?.is_empty(), "{}", trouble(site)?);
        tally.count("boot ids changed", 1);
        tally.kept();
        Ok(())
    });
}

#[test]
fn a_data_root_that_is_put_back_to_yesterday_is_reported_and_no_outcome_is_lost_or_doubled() {
    on_site(|site| {
        let mut tally = Tally::new(
            Part::TimeAndIdentity,
            "a data root that was rolled back is reported, and no outcome is lost or doubled",
        );
        tally.seed(seed());
        let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
        jobs.submit(site, &mut random, JOBS, None, 100)?;
        jobs.compare(site)?;
        site.agent()?.stop()?;
        let (root, yesterday) = (site.agent()?.root().path().to_owned(), site.path().join("yesterday"));
        copy(&root, &yesterday)?;
        for _ in 0..2 {
            // Two starts, so that the count of the copy lies behind.
            site.agent()?.start()?;
            site.wait_connected("host1")?;
            jobs.submit(site, &mut random, JOBS, None, 100)?;
            jobs.compare(site)?;
            site.agent()?.stop()?;
        }
        std::fs::rename(&root, site.path().join("today"))?;
        std::fs::rename(&yesterday, &root)?;
        site.agent()?.start()?;
        site.wait_connected("host1")?;
        wait_until("the roll-back to be reported", || Ok(trouble(site)?.contains("went back in time")))?;
        jobs.submit(site, &mut random, JOBS, None, 100)?;
        tally.count("jobs compared", jobs.compare(site)?);
        tally.count("data roots rolled back", 1);
        tally.kept();
        Ok(())
    });
}

#[test]
fn of_two_agents_with_one_identity_the_second_is_refused_and_both_are_reported() {
    on_site(|site| {
        let mut tally = Tally::new(
            Part::TimeAndIdentity,
            "of two agents with one identity the second is refused, and both are reported",
        );
        tally.seed(seed());
        let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
        let gated = site.client().submit(&site.gated()?)?;
        site.client().wait_running(gated)?;
        jobs.submit(site, &mut random, JOBS, None, 100)?;
        let folder = site.path().join("second-host");
        std::fs::create_dir(&folder)?;
        site.agent()?.stop()?; // so that what is copied does not change meanwhile
        copy(site.agent()?.root().path(), &folder.join("host1"))?;
        site.agent()?.start()?;
        site.wait_connected("host1")?;
        copy(&site.agent()?.secret_file(), &folder.join("host1.secret"))?;
        let secret = std::fs::read_to_string(folder.join("host1.secret"))?;
        let mut second = tests::Agent::prepare(&folder, "host1", Some(site.server.agents_address()))?;
        second.write_secret(secret.trim())?;
        second.start_with(&boot(0x77))?;
        wait_until("the server to report the copy", || {
            Ok(trouble(site)?.contains("must not be used by two"))
        })?;
        wait_until("the copy to be told", || Ok(traces(&second).contains("must not be used by two")))?;
        wait_until("the first to be told", || {
            Ok(traces(&site.agents[0]).contains("must not be used by two"))
        })?;
        ensure!(site.client().agent("host1")?.connected, "the first one keeps its link");
        site.open_gate()?;
        let job = site.client().wait(gated)?;
        ensure!(End::Code(7).fits(&job), "the copy told of a job that it does not have: {job:#?}");
        jobs.submit(site, &mut random, JOBS, None, 100)?;
        tally.count("jobs compared", jobs.compare(site)? + 1);
        second.stop()?;
        // The copy stays out, also when the first one is away.
        site.agent()?.stop()?;
        second.start_with(&boot(0x77))?;
        wait_until("the copy to be refused again", || {
            Ok(traces(&second).matches("agent resume").count() > 0)
        })?;
        ensure!(!site.client().agent("host1")?.connected, "the copy was let in");
        second.stop()?;
        tally.count("copies refused", 2);
        tally.kept();
        Ok(())
    });
}

#[test]
fn a_copy_of_a_data_root_starts_nothing_that_was_accepted_and_not_started() {
    on_site(|site| {
        let mut tally = Tally::new(
            Part::TimeAndIdentity,
            "a copy of a data root starts nothing that was accepted on the other host",
        );
        tally.seed(seed());
        let point = CrashPoint::new("start.after-lock", site.path());
        point.arm_with(Deed::Stop, 1)?;
        let way = Way { sleep_ms: 0, end: End::Code(7) };
        let id = site.client().submit(&ledger_job(site.ledger().path(), way)?)?;
        let job_processor = point.wait_stopped()?;
        site.agent()?.stop()?;
        job_processor.kill()?;
        wait_until("its job-processor to be gone", || Ok(!job_processor.lives()))?;
        let folder = site.path().join("second-host");
        std::fs::create_dir(&folder)?;
        copy(site.agent()?.root().path(), &folder.join("host1"))?;
        copy(&site.agent()?.secret_file(), &folder.join("host1.secret"))?;
        let secret = std::fs::read_to_string(folder.join("host1.secret"))?;
        site.agent()?.start()?;
        let job = site.client().wait(id)?;
        ensure!(End::Code(7).fits(&job), "{job:#?}");
        let mut second = tests::Agent::prepare(&folder, "host1", Some(site.server.agents_address()))?;
        second.write_secret(secret.trim())?;
        second.start_with(&boot(0x77))?;
        wait_until("the copy to wait", || Ok(traces(&second).contains("waits until the server has let")))?;
        wait_until("the copy to be refused", || Ok(traces(&second).contains("must not be used by two")))?;
        ensure!(site.ledger().of(id)?.len() == 1, "the copy executed it too");
        second.stop()?;
        // A host that was restarted is let in, and then it is started.
        point.arm_with(Deed::Stop, 1)?;
        let id = site.client().submit(&ledger_job(site.ledger().path(), way)?)?;
        let job_processor = point.wait_stopped()?;
        site.agent()?.vanish()?;
        job_processor.kill()?;
        site.agent()?.start_with(&boot(0x5a))?;
        let job = site.client().wait(id)?;
        ensure!(End::Code(7).fits(&job), "{job:#?}");
        ensure!(site.ledger().of(id)?.len() == 1, "executed once");
        tally.count("jobs compared", 2);
        tally.count("copies refused", 1);
        tally.kept();
        Ok(())
    });
}

/// What the processes of an agent traced.
fn traces(agent: &tests::Agent) -> String {
    let folder = agent.root().path().join("trace");
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files
        .map(|file| std::fs::read(file.path()).unwrap_or_default())
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .collect::<String>()
        + &agent.trace()
}
