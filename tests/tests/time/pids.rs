//! A process id that is used again: whoever has it now is never signalled and never taken for the job.

use anyhow::{Context, Result, ensure};
use api::Status;
use std::process::{Child, Command, Stdio};
use tests::{Dialling, End, Part, Process, Site, Tally, is_root, on_empty_site, wait_for, wait_until};

/// Tries to give a process the wanted id: another one may come between.
const TRIES_MAX: u32 = 200;

/// A pid namespace: its first process reaps what nobody waits for.
struct Space {
    outside: Child,
    first: Process,
}

impl Space {
    fn new(site: &Site) -> Result<Space> {
        let mut command = Command::new("unshare");
        command.args([
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-c",
            "while :; do sleep 0.05; done",
        ]);
        let outside = command.arg(site.path()).stdin(Stdio::null()).spawn()?;
        let parent = Process::find(outside.id()).context("unshare")?;
        let first = wait_for("the first process of the namespace", || {
            Ok(parent.children().into_iter().find(|child| child.program != "unshare"))
        })?;
        Ok(Space { outside, first })
    }

    fn entry(&self) -> Vec<String> {
        let first = self.first.pid.to_string();
        ["nsenter", "--target", &first, "--pid", "--mount", "--"].map(str::to_owned).to_vec()
    }

    fn run(&self, script: &str) -> Result<String> {
        let entry = self.entry();
        let output = Command::new(&entry[0]).args(&entry[1..]).args(["sh", "-c", script]).output()?;
        ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A stranger with exactly this id; seen from outside.
    fn force(&self, pid: u32, marker: &str) -> Result<Process> {
        for _ in 0..TRIES_MAX {
            let script = format!(
                "echo {} > /proc/sys/kernel/ns_last_pid; sleep {marker} >/dev/null 2>&1 & \
                 if [ $! = {pid} ]; then echo got; else kill $!; fi",
                pid - 1
            );
            if self.run(&script)? == "got" {
                return wait_for("the stranger", || {
                    let all = os::procfs::all()?.into_iter().filter_map(|(pid, _)| Process::find(pid));
                    let mut strangers = all.filter(|process| {
                        let words =
                            std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
                        words == format!("sleep\0{marker}\0").into_bytes()
                    });
                    Ok(strangers.next())
                });
            }
        }
        anyhow::bail!("pid {pid} was never given to a process of the test")
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.first.kill(); // and with it everything in the namespace
        let _ = self.outside.wait();
    }
}

#[test]
fn whoever_gets_the_pid_of_a_job_is_never_signalled_and_never_taken_for_it() {
    let mut tally = Tally::new(
        Part::TimeAndIdentity,
        "a process that gets the pid of a job is never signalled and never taken for it",
    );
    if !is_root() {
        eprintln!("not tried: pid namespaces are root's");
        return tally.skipped("pid namespaces are root's");
    }
    let tried = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    let refused = match tried {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(String::from_utf8_lossy(&tried.stderr).trim().to_owned()),
        Err(e) => Some(format!("no unshare: {e}")),
    };
    if let Some(why) = refused {
        let why = format!("no pid namespaces: {why}");
        eprintln!("not tried: {why}");
        return tally.skipped(&why);
    }
    on_empty_site(|site| {
        let space = Space::new(site)?;
        let mut agent = site.prepare_agent("host1", Dialling::In)?;
        agent.set_entry(space.entry());
        site.add_prepared_agent(agent, Dialling::In, &[])?;
        for (round, job_is_running) in [(1, true), (2, false)] {
            let go = site.path().join(format!("go{round}"));
            let id = site.client().submit(&tests::gated_job(site.ledger().path(), &go, End::Code(7))?)?;
            let run = site.client().wait_running(id)?.runs[0].run_id.clone();
            let execution = wait_for("the job's own account", || Ok(site.ledger().of(id)?.pop()))?;
            let job_processor = wait_for("the job-processor", || site.agents[0].job_processor(&run))?;
            // Nobody is left who could see the end of the job.
            site.agent()?.vanish()?;
            job_processor.kill()?;
            wait_until("the job-processor to be gone", || Ok(!job_processor.lives()))?;
            std::fs::write(&go, "")?;
            wait_until("the job's pid to be free", || {
                Ok(space.run(&format!("[ -e /proc/{} ] && echo there; true", execution.pid))?.is_empty())
            })?;
            let stranger = space.force(execution.pid, &format!("98765{round}"))?;
            tally.count("process ids forced", 1);
            if job_is_running {
                site.client().kill(id, Some(100))?; // the wish comes to an agent that finds the stranger
            }
            site.agent()?.start()?;
            let told = site.client().wait(id)?;
            ensure!(told.status.0 == Status::Unknown || End::Code(7).fits(&told), "{told:#?}");
            ensure!(told.status.0 != Status::Killed, "the stranger's end is not the job's: {told:#?}");
            tally.count("jobs compared", 1);
            ensure!(stranger.lives(), "the stranger with the job's pid was ended");
            stranger.kill()?;
        }
        // Nothing else is wrong with it.
        let id = site.client().command(&["/bin/true"])?;
        ensure!(site.client().wait(id)?.status.0 == Status::Completed, "after all that");
        site.agent()?.stop()?;
        drop(space);
        tally.kept();
        Ok(())
    });
}
