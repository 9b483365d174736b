//! The agent's programs are replaced while jobs run.

use anyhow::{Context, Result};
use os::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tests::{Dialling, End, Process, Site, on_empty_site, wait_for, wait_until};

/// A site with an agent whose programs can be replaced; they lie in that directory.
fn with_own_programs(test: impl FnOnce(&mut Site, &Path) -> Result<()>) {
    on_empty_site(|site| {
        let mut agent = site.prepare_agent("host1", Dialling::In)?;
        let programs = agent.set_own_programs()?;
        site.introduce(&agent)?;
        agent.start()?;
        site.agents.push(agent);
        site.wait_connected("host1")?;
        test(site, &programs)
    });
}

/// Puts a program into the place of another as a package manager does: under its name stands the one or the other.
fn install(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, content)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    Ok(std::fs::rename(&new, path)?)
}

fn running(site: &Site) -> Result<(u64, String)> {
    let id = site.client().submit(&site.gated()?)?;
    let job = site.client().wait_running(id)?;
    wait_for("the job to begin", || Ok(site.ledger().of(id)?.pop()))?;
    Ok((id, job.runs[0].run_id.clone()))
}

/// Makes the run's job an orphan, which is the monitor's child from then on: the network-processor that started it is dead.
fn orphan(site: &mut Site, run_id: &str) -> Result<()> {
    let before = site.agent()?.kill_network_processor()?;
    wait_until("another network-processor", || {
        Ok(site.agent()?.network_processor()?.is_some_and(|now| now != before))
    })?;
    let job_processor = site.agent()?.job_processor(run_id)?.context("no job-processor")?;
    job_processor.kill()?;
    wait_until("the job-processor to be gone", || Ok(!job_processor.lives()))?;
    says(site, "its job is watched here")
}

fn monitor(site: &mut Site) -> Result<Process> {
    site.agent()?.monitor().context("no monitor")
}

fn says(site: &Site, what: &str) -> Result<()> {
    wait_until(&format!("the agent to say {what:?}"), || Ok(site.agents[0].trace().contains(what)))
}

#[test]
fn an_orphan_that_ends_while_the_monitor_replaces_itself_keeps_its_exact_exit_code() {
    with_own_programs(|site, programs| {
        let (id, run_id) = running(site)?;
        let pid = monitor(site)?.pid;
        orphan(site, &run_id)?;
        // The new program stops for a moment before it begins, in the very process of the monitor.
        let (real, fifo, there) =
            (programs.join("real"), site.path().join("fifo"), site.path().join("there"));
        std::fs::rename(programs.join("platform-agent"), &real)?;
        let made = std::process::Command::new("mkfifo").arg(&fifo).status()?;
        anyhow::ensure!(made.success());
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--take-over*) : > {}; read go < {};; esac\nexec {} \"$@\"\n",
            there.display(),
            fifo.display(),
            real.display()
        );
        install(&programs.join("platform-agent"), script.as_bytes())?;
        monitor(site)?.signal(Signal::USR2)?;
        wait_until("the exec", || Ok(there.exists()))?;
        // Signals of now would end the process by default.
        for signal in [Signal::HUP, Signal::USR2] {
            monitor(site)?.signal(signal)?;
        }
        site.open_gate()?;
        wait_for("the job to end", || Ok(site.ledger().of(id)?.pop().filter(|e| e.end.is_some())))?;
        anyhow::ensure!(monitor(site)?.pid == pid, "it is there still");
        std::fs::write(&fifo, "go\n")?;
        let job = site.client().wait(id)?;
        assert!(End::Code(7).fits(&job), "{job:#?}");
        assert_eq!(job.runs[0].witness.as_deref(), Some("monitor"), "{job:#?}");
        says(site, "goes on in its new program")?;
        assert_eq!(monitor(site)?.pid, pid, "the same process");
        Ok(())
    });
}

#[test]
fn the_monitor_notices_a_newer_program_and_keeps_its_lock_its_jobs_and_its_network_processor() {
    with_own_programs(|site, programs| {
        let (id, run_id) = running(site)?;
        let (before, network_processor) = (monitor(site)?.pid, site.agent()?.network_processor()?);
        let content = std::fs::read(programs.join("platform-agent"))?;
        install(&programs.join("platform-agent"), &content)?;
        says(site, "goes on in its new program")?;
        assert_eq!(monitor(site)?.pid, before);
        assert_eq!(site.agent()?.network_processor()?, network_processor);
        assert_eq!(
            site.agent()?.root().lock_holder("platform-agent")?,
            Some(before),
            "the lock was never open"
        );
        // It is the witness of the run still.
        orphan(site, &run_id)?;
        site.open_gate()?;
        let job = site.client().wait(id)?;
        assert!(End::Code(7).fits(&job), "{job:#?}");
        assert_eq!(job.runs[0].witness.as_deref(), Some("monitor"), "{job:#?}");
        Ok(())
    });
}

#[test]
fn a_network_processor_makes_room_for_its_newer_program_and_no_job_notices() {
    with_own_programs(|site, programs| {
        let (id, run_id) = running(site)?;
        let job_processor = site.agent()?.job_processor(&run_id)?;
        let before = site.agent()?.network_processor()?.context("no network-processor")?;
        let content = std::fs::read(programs.join("network-processor"))?;
        install(&programs.join("network-processor"), &content)?;
        wait_until("another network-processor", || {
            Ok(site.agent()?.network_processor()?.is_some_and(|now| now != before))
        })?;
        site.wait_connected("host1")?;
        assert!(!site.agent()?.trace().contains("ended abnormally"), "it is no crash");
        assert_eq!(site.agent()?.job_processor(&run_id)?, job_processor);
        site.open_gate()?;
        assert!(End::Code(7).fits(&site.client().wait(id)?));
        Ok(())
    });
}

#[test]
fn a_program_that_cannot_take_over_is_refused_and_the_agent_goes_on() {
    with_own_programs(|site, programs| {
        let (id, _) = running(site)?;
        install(&programs.join("platform-agent"), b"#!/bin/sh\necho wrong machine >&2\nexit 1\n")?;
        says(site, "the monitor goes on as it is")?;
        assert!(site.agent()?.trace().contains("wrong machine"));
        site.open_gate()?;
        assert!(End::Code(7).fits(&site.client().wait(id)?));
        Ok(())
    });
}

#[test]
fn upgrade_asks_the_agent_that_runs_and_check_says_what_is_wrong() {
    with_own_programs(|site, programs| {
        let config = site.agent()?.write_config()?;
        let agent = |argument: &str| {
            let mut command = std::process::Command::new(programs.join("platform-agent"));
            command.arg("--config").arg(&config).arg(argument).output()
        };
        let checked = agent("--check")?;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success(), "{said}");
        for what in
            ["configuration", "data_root", "network-processor", "job-processor", "secret_file", "connect"]
        {
            assert!(
                said.lines().any(|line| line.starts_with("fine") && line.contains(what)),
                "{what}: {said}"
            );
        }
        assert!(!said.contains("free_bytes_min"), "{said}");
        let mut command = std::process::Command::new(programs.join("platform-agent"));
        command.arg("--config").arg(&config).arg("--check");
        let short = command.env("LASTWORD_RETENTION__FREE_BYTES_MIN", "1000T").output()?;
        let said = String::from_utf8_lossy(&short.stdout).into_owned();
        assert!(short.status.success() && said.contains("note   data_root: "), "{said}");
        let upgraded = agent("--upgrade")?;
        let said = String::from_utf8_lossy(&upgraded.stdout).into_owned();
        assert!(upgraded.status.success() && said.contains("goes on in"), "{said} {upgraded:?}");
        std::fs::set_permissions(site.agent()?.secret_file(), std::fs::Permissions::from_mode(0o644))?;
        std::fs::remove_file(programs.join("job-processor"))?;
        let checked = agent("--check")?;
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert_eq!(checked.status.code(), Some(78), "{said}");
        assert!(said.lines().any(|line| line.starts_with("wrong  job-processor")), "{said}");
        Ok(())
    });
}
