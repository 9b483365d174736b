//! `cargo xtask demo`: a server and an agent on loopback, a handful of real jobs, and a few kills in the middle.
//!
//! What it leaves: nothing, or with `--keep` everything running in its scratch directory. After a failure the processes are stopped
//! and the scratch directory stays, with every trace in it.

mod cast;
mod process;
mod site;
mod watch;

use crate::build::{self, Profile};
use anyhow::{Context, Result, bail};
use cast::{Cast, PRINTED_LINES};
use process::Process;
use site::Site;
use std::time::Duration;
use watch::Watch;

/// The printing job has got this far when the network-processor is killed.
const LINES_BEFORE_THE_KILL: usize = 4;

/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(150);

/// Runs the demonstration.
pub(crate) fn run(keep: bool, profile: Profile) -> Result<()> {
    let programs = build::programs(profile)?;
    let site = Site::start(&programs, keep)?;
    let played = play(&site);
    match played {
        Ok(()) if keep => {
            site.leave_running();
            Ok(())
        }
        Ok(()) => site.stop_and_remove(),
        Err(error) => {
            site.stop_after_failure();
            Err(error)
        }
    }
}

fn play(site: &Site) -> Result<()> {
    let mut watch = Watch::new();
    let cast = Cast::new(site);
    for act in &cast.acts {
        let number = site.submit(act)?;
        watch.expect(number, act);
        watch.say(&format!("job {number} submitted: {:<9} {}", act.name, act.about));
    }
    kill_the_link(site, &mut watch)?;
    kill_a_supervisor(site, &mut watch, &cast)?;
    until(site, &mut watch, "every outcome to arrive", |_, watch| Ok(watch.all_final()))?;
    finale(site, &mut watch)
}

/// Kills the network-processor while the printing job prints; the job goes on, the monitor brings the link back.
fn kill_the_link(site: &Site, watch: &mut Watch) -> Result<()> {
    let printing = watch.number_of("print")?;
    watch.follow(printing);
    until(site, watch, "the printing job to print", |_, watch| Ok(watch.printed() >= LINES_BEFORE_THE_KILL))?;
    let link = site.network_processor()?.context("the agent has no network-processor")?;
    let out = site.output_file(printing)?;
    link.kill()?;
    watch.say(&format!(
        "SIGKILL to network-processor (pid {}), the agent's only link to the server; platform-agent starts it again after {} (the default is 10s)",
        link.pid,
        site::RESTART_DELAY
    ));
    let lines = || std::fs::read_to_string(&out).map_or(0, |text| text.lines().count());
    let before = lines();
    let mut said = false;
    until(site, watch, "platform-agent to start the network-processor again", |site, watch| {
        if !said && lines() >= before + 2 {
            watch.say(&format!(
                "no link, and the job prints on: its file on the agent holds {} lines",
                lines()
            ));
            said = true;
        }
        Ok(site.network_processor()?.is_some_and(|new| new.pid != link.pid))
    })?;
    let pid = site.network_processor()?.map_or(0, |new| new.pid);
    watch.say(&format!("platform-agent started network-processor again (pid {pid})"));
    until(site, watch, "the agent to be connected again", |site, _| site.agent_is_connected())?;
    watch.say("the agent is connected again; what happened meanwhile arrives");
    Ok(())
}

/// Kills the job-processor of a running job; the monitor sees the job's end in its place.
fn kill_a_supervisor(site: &Site, watch: &mut Watch, cast: &Cast) -> Result<()> {
    let job = watch.number_of("survive")?;
    until(site, watch, "job-processor and its job to run", |site, _| Ok(site.supervised(job)?.is_some()))?;
    let (supervisor, process) = site.supervised(job)?.context("the job that is to survive does not run")?;
    supervisor.kill()?;
    watch.say(&format!(
        "SIGKILL to job-processor (pid {}), the parent and only watcher of job {job} (pid {})",
        supervisor.pid, process.pid
    ));
    until(site, watch, "the orphan to come to platform-agent", |site, _| {
        Ok(Process::of(process.pid).is_some_and(|process| process.parent == site.agent_pid()))
    })?;
    watch.say(&format!("job {job} runs on; its parent is now platform-agent, the last witness"));
    std::fs::write(&cast.gate, "go").context("cannot let the job go on")?;
    Ok(())
}

/// The proof of one job, the table of all, and whether everything came as it had to.
fn finale(site: &Site, watch: &mut Watch) -> Result<()> {
    let survivor = watch.number_of("survive")?;
    println!(
        "\nThe ledger of job {survivor}, whose job-processor was killed (lastword job prove {survivor}):\n"
    );
    println!("{}", site.lastword(&["job", "prove", &survivor.to_string()])?.trim_end());
    let printed = site.lastword(&["job", "logs", &watch.number_of("print")?.to_string()])?;
    let table = watch.table(site)?;
    println!("\n{}", table.text);
    let lines = printed.lines().count();
    if lines != PRINTED_LINES {
        bail!("the printing job's output has {lines} lines, not {PRINTED_LINES}");
    }
    if !table.wrong.is_empty() {
        bail!("not as it had to come: {}", table.wrong.join("; "));
    }
    println!(
        "Every outcome is the true one, and each line of the printing job is there. Each job got its last word in."
    );
    Ok(())
}

/// Looks, and shows what changed, until the condition holds.
fn until(
    site: &Site,
    watch: &mut Watch,
    what: &str,
    mut condition: impl FnMut(&Site, &mut Watch) -> Result<bool>,
) -> Result<()> {
    site::wait_for(what, LOOK_PAUSE, || {
        site.check_alive()?;
        watch.look(site);
        condition(site, watch)
    })
}
