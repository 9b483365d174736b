//! What can be done to a job while it runs.

use crate::outcomes::{shell, wait_for_line};
use api::{Job, JobSubmit, Span, Status};
use os::signal::Signal;
use spool::Shelf;
use std::path::PathBuf;
use tests::{CrashPoint, Dialling, Process, Site, on_empty_site, on_site, wait_until};

/// Writes a line again and again, and so does its child in another session.
pub(crate) const BUSY: &str =
    "setsid sh -c 'while :; do echo child; sleep 0.01; done' & while :; do echo self; sleep 0.01; done";

#[test]
fn a_suspended_job_stands_still_with_its_children_and_goes_on_when_it_is_resumed() {
    on_site(|site| stands_still_and_goes_on(site, &shell(BUSY)));
}

#[test]
fn without_a_control_group_the_whole_tree_is_stopped() {
    on_empty_site(|site| {
        let off = [("LASTWORD_CGROUP".to_owned(), "off".to_owned())];
        site.add_agent_with("host1", Dialling::In, &off)?;
        stands_still_and_goes_on(site, &shell(BUSY))
    });
}

pub(crate) fn stands_still_and_goes_on(site: &Site, busy: &JobSubmit) -> anyhow::Result<()> {
    let id = site.client().submit(busy)?;
    wait_for_line(site, id, "child")?;
    refused(site, id, "resume", "not-suspended")?;
    site.client().change(id, "suspend")?;
    wait_status(site, id, Status::Suspended)?;
    assert_eq!(site.client().job(id)?.suspend_requested_by, None, "it is obeyed");
    site.client().change(id, "suspend")?; // once more is no harm
    stands_still(site, id)?;
    assert!(site.client().why(id)?.contains("suspended"), "{}", site.client().why(id)?);
    site.client().change(id, "resume")?;
    wait_status(site, id, Status::Running)?;
    wait_until("the job to write again", || writes(site, id))?;
    site.client().change(id, "suspend")?;
    wait_status(site, id, Status::Suspended)?;
    site.client().kill(id, Some(60_000))?;
    let job = site.client().wait(id)?;
    assert_eq!((job.status.0, job.signal), (Status::Killed, Some(15)), "it was woken to end: {job:#?}");
    refused(site, id, "suspend", "already-over")?;
    let steps: Vec<String> =
        site.client().proof(id)?.runs[0].steps.iter().map(|step| step.step.clone()).collect();
    assert_eq!(steps.iter().filter(|step| *step == "suspended").count(), 2, "{steps:?}");
    assert_eq!(steps.iter().filter(|step| *step == "resumed").count(), 1, "{steps:?}");
    Ok(())
}

#[test]
fn the_time_limit_does_not_count_while_a_job_is_suspended_even_if_its_job_processor_dies() {
    on_site(|site| {
        let timeout = Some(Span { ms: 1_500 });
        let id = site.client().submit(&JobSubmit { timeout, ..shell(BUSY) })?;
        wait_for_line(site, id, "self")?;
        site.client().change(id, "suspend")?;
        let run = wait_status(site, id, Status::Suspended)?.runs[0].run_id.clone();
        let job_processor = site.agent()?.job_processor(&run)?.expect("it has a job-processor");
        job_processor.kill()?;
        stands_still(site, id)?;
        let longer = site.client().command(&["/bin/sleep", "1.8"])?;
        site.client().wait(longer)?;
        assert_eq!(site.client().job(id)?.status.0, Status::Suspended);
        site.client().change(id, "resume")?;
        wait_status(site, id, Status::Running)?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.timed_out), (Status::Killed, true), "{job:#?}");
        assert_ne!(job.runs[0].witness.as_deref(), Some("job-processor"));
        Ok(())
    });
}

#[test]
fn a_suspended_job_that_is_told_to_end_has_its_grace_even_if_its_job_processor_dies() {
    on_site(|site| {
        let (ending, go) = (site.path().join("ending"), site.path().join("go"));
        let handler =
            format!(": > {}; while [ ! -e {} ]; do sleep 0.02; done; exit 3", ending.display(), go.display());
        let id = site.client().submit(&shell(&format!("trap '{handler}' TERM; {BUSY}")))?;
        wait_for_line(site, id, "self")?;
        site.client().change(id, "suspend")?;
        let run = wait_status(site, id, Status::Suspended)?.runs[0].run_id.clone();
        site.client().kill(id, Some(8_000))?;
        wait_until("the job to hear that it is to end", || Ok(ending.exists()))?;
        site.agent()?.job_processor(&run)?.expect("it has a job-processor").kill()?;
        wait_until("the adoption", || Ok(site.agents[0].trace().contains("adopted")))?;
        std::fs::write(&go, "")?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.exit_code), (Status::Killed, Some(3)), "{job:#?}");
        Ok(())
    });
}

#[test]
fn a_wish_to_suspend_outlives_the_agents_absence_and_the_servers_death() {
    on_site(|site| {
        let id = site.client().submit(&shell(BUSY))?;
        wait_for_line(site, id, "child")?;
        site.agent()?.stop()?;
        site.wait_away("host1")?;
        site.client().change(id, "suspend")?;
        site.server.kill()?;
        site.server.restart()?;
        assert!(site.client().job(id)?.suspend_requested_by.is_some());
        site.agent()?.start()?;
        wait_status(site, id, Status::Suspended)?;
        stands_still(site, id)?;
        site.client().kill(id, Some(0))?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Killed);
        Ok(())
    });
}

/// The log says it first, then the processes are stopped.
pub(crate) fn stands_still(site: &Site, id: u64) -> anyhow::Result<()> {
    wait_until("the job to stand still", || Ok(!writes(site, id)?))?;
    anyhow::ensure!(!writes(site, id)?, "it goes on by itself");
    Ok(())
}

/// Whether the job writes something while another one comes and goes.
fn writes(site: &Site, id: u64) -> anyhow::Result<bool> {
    let size = || anyhow::Ok(site.client().output(id, "stdout", 0)?.bytes.len());
    let before = size()?;
    let other = site.client().command(&["/bin/sleep", "0.1"])?;
    site.client().wait(other)?;
    Ok(size()? != before)
}

pub(crate) fn wait_status(site: &Site, id: u64, status: Status) -> anyhow::Result<Job> {
    wait_until(&format!("job {id} to be {status}"), || Ok(site.client().job(id)?.status.0 == status))?;
    site.client().job(id)
}

/// The order is refused for this reason.
fn refused(site: &Site, id: u64, verb: &str, kind: &str) -> anyhow::Result<()> {
    let answer = site.client().try_call("POST", &format!("/api/v1/jobs/{id}/{verb}"), None)?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    anyhow::ensure!(answer.status == 409 && body.contains(kind), "{verb}: {} {body}", answer.status);
    Ok(())
}

#[test]
fn output_beyond_its_limit_keeps_its_ends_or_is_cut_or_ends_the_run() {
    on_site(|site| {
        let filler = "i=0; while [ $i -lt 3000 ]; do echo \"line $i xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"; i=$((i+1)); done; echo last";
        let limited =
            |limit: &str, text: &str| JobSubmit { output_limit: Some(limit.to_owned()), ..shell(text) };
        let ends = site.client().submit(&limited("64K", filler))?;
        let cut = site.client().submit(&limited("64K:truncate", filler))?;
        let killed = site.client().submit(&limited("64K:kill", &format!("{filler}; sleep 1000")))?;
        assert_eq!(site.client().wait(ends)?.status.0, Status::Completed);
        let text = wait_note(site, ends, "first and the last")?;
        assert!(text.contains("standard output"), "{text}");
        let bytes = site.client().whole_output(ends, "stdout")?;
        assert!(bytes.starts_with(b"line 0 ") && bytes.ends_with(b"last\n"), "both ends are there");
        assert!(
            bytes.len() < 100_000 && !bytes.contains(&0),
            "{} bytes, and no zeros for what was left out",
            bytes.len()
        );
        let piece = site.client().output(ends, "stdout", 0)?;
        let gap = piece.gap.as_deref().and_then(|gap| gap.split_once('-'));
        let (from, to) =
            gap.map(|(from, to)| (from.parse::<u64>(), to.parse::<u64>())).expect("the answer tells the gap");
        let left_out = to? - from.clone()?;
        assert_eq!((from?, piece.size), (32 << 10, piece.bytes.len() as u64 + left_out));
        let printed = site.lastword(&["job", "logs", &ends.to_string()])?.output()?;
        let printed = String::from_utf8(printed.stdout)?;
        let told = format!("… {left_out} bytes left out by the output limit …");
        assert!(printed.contains(&told) && printed.ends_with("last\n"), "{told}");
        assert_eq!(site.client().wait(cut)?.status.0, Status::Completed);
        wait_note(site, cut, "cut off")?;
        assert_eq!(site.client().whole_output(cut, "stdout")?.len(), 64 << 10);
        let job = site.client().wait(killed)?;
        assert_eq!(job.status.0, Status::Killed, "{job:#?}");
        assert!(job.reason.as_deref().unwrap_or_default().contains("output limit"), "{job:#?}");
        Ok(())
    });
}

#[test]
fn the_output_limit_holds_when_the_job_processor_is_dead() {
    on_site(|site| {
        let go = site.go();
        let text = format!("while [ ! -e {} ]; do sleep 0.02; done; yes", go.display());
        let output_limit = Some("1M:kill".to_owned());
        let id = site.client().submit(&JobSubmit { output_limit, ..shell(&text) })?;
        let run = site.client().wait_running(id)?.runs[0].run_id.clone();
        site.agent()?.job_processor(&run)?.expect("it has a job-processor").kill()?;
        site.open_gate()?;
        let job = site.client().wait(id)?;
        assert_eq!(job.status.0, Status::Killed, "{job:#?}");
        assert!(job.reason.unwrap_or_default().contains("output limit"));
        Ok(())
    });
}

#[test]
fn what_a_job_leaves_behind_is_waited_for_or_goes_on_as_it_says() {
    on_site(|site| {
        let go = site.go();
        let text = format!(
            "setsid sh -c 'while [ ! -e {} ]; do sleep 0.02; done; echo late' & echo pid $!",
            go.display()
        );
        let leaving = |what: &str| JobSubmit { leftovers: Some(what.to_owned()), ..shell(&text) };
        let waits = site.client().submit(&leaving("wait"))?;
        let ignores = site.client().submit(&leaving("ignore"))?;
        for id in [waits, ignores] {
            assert_eq!(site.client().wait(id)?.status.0, Status::Completed, "the outcome does not wait");
        }
        wait_note(site, ignores, "go on")?;
        site.open_gate()?;
        wait_note(site, waits, "by themselves")?;
        for id in [waits, ignores] {
            wait_until("the late line", || Ok(site.client().stdout(id)?.ends_with("late\n")))?;
        }
        let run = site.client().job(ignores)?.runs[0].run_id.clone();
        wait_until("both runs are settled", || Ok(site.agent()?.count(Shelf::Live) == 0))?;
        let monitor = site.agent()?.monitor().expect("it runs");
        monitor.signal(Signal::HUP)?; // a round of housekeeping follows at once
        wait_until("the empty control group to go", || Ok(groups_of(&run)?.is_empty()))
    });
}

#[test]
fn what_a_job_left_behind_is_ended_though_job_processor_and_agent_died_before_they_could() {
    on_empty_site(|site| nobody_is_left_to_end_it(site, &[]));
}

#[test]
fn without_a_control_group_it_is_known_by_the_run_in_its_environment() {
    on_empty_site(|site| nobody_is_left_to_end_it(site, &[("LASTWORD_CGROUP".to_owned(), "off".to_owned())]));
}

/// Everything of the agent dies between the outcome and the end of what the job left behind.
fn nobody_is_left_to_end_it(site: &mut Site, environment: &[(String, String)]) -> anyhow::Result<()> {
    let point = CrashPoint::new("end.after-ended", site.path());
    site.add_agent_with("host1", Dialling::In, environment)?;
    let (go, pid) = (site.go(), site.path().join("pid"));
    let text = format!(
        "setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' & while [ ! -e {1} ]; do sleep 0.02; done; exit 7",
        pid.display(),
        go.display()
    );
    let id = site.client().submit(&shell(&text))?;
    wait_until("the job to leave something", || Ok(pid.exists()))?;
    let left = std::fs::read_to_string(&pid)?.trim().parse().ok().and_then(Process::find);
    let left = left.ok_or(anyhow::anyhow!("it left nothing"))?;
    point.arm()?;
    site.agent()?.vanish()?;
    site.open_gate()?;
    point.wait_fired()?;
    assert!(left.lives());
    site.agent()?.start_with(environment)?;
    wait_until("what was left to be ended", || Ok(!left.lives()))?;
    let job = site.client().wait(id)?;
    assert_eq!((job.exit_code, job.runs[0].witness.as_deref()), (Some(7), Some("job-processor")), "{job:#?}");
    wait_until("the run to be settled", || Ok(site.agent()?.count(Shelf::Settled) == 1))
}

#[test]
fn a_program_whose_path_looks_like_our_own_can_be_suspended_when_its_job_processor_is_dead() {
    on_site(|site| {
        let own = site.path().join("job-processor");
        std::fs::create_dir(&own)?;
        std::fs::copy("/bin/sleep", own.join("job-processor"))?;
        let program = own.join("job-processor").display().to_string();
        let id = site.client().command(&[program.as_str(), "1000"])?;
        let run = site.client().wait_running(id)?.runs[0].run_id.clone();
        site.agent()?.job_processor(&run)?.expect("it has a job-processor").kill()?;
        wait_until("the adoption", || Ok(site.agents[0].trace().contains("adopted")))?;
        site.client().change(id, "suspend")?;
        wait_status(site, id, Status::Suspended)?;
        site.client().kill(id, Some(60_000))?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.signal), (Status::Killed, Some(15)), "{job:#?}");
        Ok(())
    });
}

/// The control groups of a run, whoever made them; none where there are no control groups.
fn groups_of(run: &str) -> anyhow::Result<Vec<PathBuf>> {
    let Some(top) = os::cgroup::mount_point() else { return Ok(Vec::new()) };
    let Ok(agents) = std::fs::read_dir(top.join("lastword")) else { return Ok(Vec::new()) };
    Ok(agents.flatten().map(|agent| agent.path().join(run)).filter(|path| path.exists()).collect())
}

#[test]
fn files_of_a_job_are_kept_and_no_link_leads_out() {
    on_site(|site| {
        let text = "mkdir -p report/deep; echo one > report/a.txt; echo two > report/deep/b.txt; echo no > c.dat; ln -s /etc report/etc; ln -s /etc/passwd report/p.txt";
        let capture = ["report/*.txt", "**/b.*", "report/etc/*", "missing"].map(str::to_owned).to_vec();
        let id = site.client().submit(&JobSubmit { capture, ..shell(text) })?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        wait_note(site, id, "missing")?;
        let note = wait_note(site, id, "not kept")?;
        assert!(note.contains("report/p.txt"), "{note}");
        let list = site.client().call("GET", &format!("/api/v1/jobs/{id}/files"), None)?;
        let list: api::JobFiles = list.json()?;
        let names: Vec<_> = list.items.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
        assert_eq!(names, [("report/a.txt", 4), ("report/deep/b.txt", 4)]);
        let directory = site.path().join("fetched");
        let id_text = id.to_string();
        let mut cli =
            site.lastword(&["job", "files", &id_text, "--all", directory.to_str().unwrap_or_default()])?;
        anyhow::ensure!(cli.output()?.status.success());
        assert_eq!(std::fs::read_to_string(directory.join("report/deep/b.txt"))?, "two\n");
        let proof = site.client().proof(id)?;
        assert_eq!(proof.runs[0].steps.iter().filter(|step| step.step == "captured").count(), 2);
        Ok(())
    });
}

#[test]
fn cpu_time_of_the_whole_tree_is_accounted() {
    on_site(|site| {
        // The child in another session is not waited for: only its control group knows what it used.
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let id = site.client().script(&format!(
            "setsid sh -c '{spin}; echo done > child' & while [ ! -e child ]; do sleep 0.02; done"
        ))?;
        let job = site.client().wait(id)?;
        let run = &job.runs[0];
        assert!(run.cpu_ms.is_some() && run.user_ms.is_some() && run.system_ms.is_some(), "{run:#?}");
        assert!(run.max_rss_kib > Some(0) && run.context_switches > Some(0), "{run:#?}");
        if os::cgroup::mount_point().is_some_and(|top| std::fs::create_dir_all(top.join("lastword")).is_ok())
        {
            assert!(run.cpu_ms >= Some(20), "{run:#?}");
        }
        Ok(())
    });
}

/// Waits for a note of the job's log that says so.
fn wait_note(site: &Site, id: u64, part: &str) -> anyhow::Result<String> {
    let mut found = String::new();
    wait_until(&format!("a note of job {id} that says \"{part}\""), || {
        let proof = site.client().proof(id)?;
        let notes = proof.runs.iter().flat_map(|run| &run.steps).filter_map(|step| step.server.as_ref());
        found = notes.map(|view| view.what.clone()).find(|what| what.contains(part)).unwrap_or_default();
        Ok(!found.is_empty())
    })?;
    Ok(found)
}
