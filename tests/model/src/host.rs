//! What the processes of one run do on their host: job-processor, child, monitor. Each function is one step; `false`: it cannot be taken now.

use crate::bounds::Rules;
use crate::state::{Child, Directory, Host, Outcome, Place, RUNS, State, Written};

/// Counted no further, so that the state stays small.
const EXECUTIONS_COUNTED_MAX: u8 = 2;

/// `spool::Recorder::take` in `job_processor::supervise::run`: the lock, then a look whether there is something to do.
pub(crate) fn takes_lock(state: &mut State, agent: usize, run: usize, rules: &Rules) -> bool {
    let directory = state.agents[agent].disk[run];
    let host = &mut state.agents[agent].hosts[run];
    let orphan = host.child == Child::Gated && !host.locked;
    if host.launched == 0 {
        return false;
    }
    host.launched -= 1;
    let open = matches!(directory.place, Place::Live | Place::Unsynced)
        && directory.started == Written::No
        && directory.ended.is_none();
    if open && !host.locked {
        host.locked = true;
        if orphan {
            // It sleeps, and says nothing when it wakes: what will be announced is another. Without that rule it may speak.
            (host.sleeper, host.child) = (!rules.farewell_is_own, Child::None);
        }
    }
    forget_watch(state, agent, run);
    true
}

/// `os::child::Gated::spawn`.
pub(crate) fn forks(state: &mut State, agent: usize, run: usize, rules: &Rules) -> bool {
    let directory = state.agents[agent].disk[run];
    let host = &mut state.agents[agent].hosts[run];
    // Without the gate a job of an earlier job-processor may run by now: it is none of this one's.
    let free = matches!(host.child, Child::None | Child::Gone) || !rules.start_gate;
    if !host.locked || directory.started != Written::No || !free || directory.ended.is_some() {
        return false;
    }
    host.child = Child::Gated;
    if !rules.start_gate {
        execute(state, agent, run);
    }
    true
}

/// The first half of `spool::Recorder::record(Started)`.
pub(crate) fn writes_started(state: &mut State, agent: usize, run: usize) -> bool {
    let (directory, host) = of(state, agent, run);
    let forked = matches!(host.child, Child::Gated | Child::Running);
    if !host.locked || !forked || directory.started != Written::No {
        return false;
    }
    directory.started = Written::Unsynced;
    true
}

/// The second half: `fdatasync`.
pub(crate) fn syncs_started(state: &mut State, agent: usize, run: usize) -> bool {
    let (directory, host) = of(state, agent, run);
    if !host.locked || directory.started != Written::Unsynced {
        return false;
    }
    directory.started = Written::Synced;
    true
}

/// `os::child::Gated::open`: the child becomes the job.
pub(crate) fn opens_gate(state: &mut State, agent: usize, run: usize, rules: &Rules) -> bool {
    let (directory, host) = of(state, agent, run);
    let announced = directory.started == Written::Synced
        || (directory.started == Written::Unsynced && !rules.sync_before_start);
    if !host.locked || host.child != Child::Gated || !announced {
        return false;
    }
    execute(state, agent, run);
    true
}

fn execute(state: &mut State, agent: usize, run: usize) {
    state.agents[agent].hosts[run].child = Child::Running;
    let count = &mut state.seen.executions[run];
    *count = (*count + 1).min(EXECUTIONS_COUNTED_MAX);
}

/// The job ends; who reaps it is its job-processor, the monitor, or nobody who tells.
pub(crate) fn job_ends(state: &mut State, agent: usize, run: usize) -> bool {
    let host = &mut state.agents[agent].hosts[run];
    if host.child != Child::Running {
        return false;
    }
    host.child = if host.locked || host.has_reaper() { Child::Zombie } else { Child::Gone };
    true
}

/// `Supervisor::on_end`: ENDED is durable, then the child is reaped, then the job-processor goes.
pub(crate) fn writes_ended(state: &mut State, agent: usize, run: usize) -> bool {
    let (directory, host) = of(state, agent, run);
    let ready = host.locked && host.child == Child::Zombie && directory.started == Written::Synced;
    if !ready || directory.ended.is_some() {
        return false;
    }
    directory.record(Outcome::Completed);
    (host.locked, host.child) = (false, Child::None);
    forget_watch(state, agent, run);
    true
}

/// `kill -9` of the job-processor that has the lock, or of one that has not asked for it yet.
pub(crate) fn job_processor_dies(state: &mut State, agent: usize, run: usize) -> bool {
    let host = &mut state.agents[agent].hosts[run];
    if host.locked {
        host.locked = false;
        if host.child == Child::Zombie && !host.has_reaper() {
            host.child = Child::Gone;
        }
    } else if host.launched > 0 {
        host.launched -= 1;
    } else {
        return false;
    }
    forget_watch(state, agent, run);
    true
}

/// `os::child` `wait_at`: the gate closed without a word. The child says farewell if it was announced, and goes.
pub(crate) fn gate_closes(state: &mut State, agent: usize, run: usize) -> bool {
    let (directory, host) = of(state, agent, run);
    if host.locked || host.child != Child::Gated {
        return false;
    }
    host.child = Child::None;
    if directory.started != Written::No && directory.ended.is_none() {
        directory.record(Outcome::NeverStarted);
    }
    true
}

/// The same of a child that slept while another job-processor came.
pub(crate) fn sleeper_wakes(state: &mut State, agent: usize, run: usize) -> bool {
    let (directory, host) = of(state, agent, run);
    if !host.sleeper {
        return false;
    }
    host.sleeper = false;
    if directory.started != Written::No && !host.locked && directory.ended.is_none() {
        directory.record(Outcome::NeverStarted);
    }
    true
}

/// `platform_agent::witness::Orphan::try_record`: it records the end of an orphan, then reaps it.
pub(crate) fn monitor_records(state: &mut State, agent: usize, run: usize) -> bool {
    let (directory, host) = of(state, agent, run);
    if host.locked || host.child != Child::Zombie || !host.of_monitor {
        return false;
    }
    host.child = Child::None;
    if directory.started != Written::No && directory.ended.is_none() {
        directory.record(Outcome::Completed);
    }
    true
}

/// The monitor dies. What runs now does not come to the next one, and zombies that it held are gone.
pub(crate) fn monitor_dies(state: &mut State, agent: usize) -> bool {
    for host in &mut state.agents[agent].hosts {
        host.of_monitor = false;
        reap_what_nobody_holds(host);
    }
    true
}

/// The network-processor dies: its orphans go to the monitor, if that is older than they are.
pub(crate) fn network_processor_dies(hosts: &mut [Host; RUNS]) {
    for host in hosts {
        host.of_np = false;
        reap_what_nobody_holds(host);
    }
}

/// `init` reaps what has no other reaper.
fn reap_what_nobody_holds(host: &mut Host) {
    if host.child == Child::Zombie && !host.locked && !host.has_reaper() {
        host.child = Child::Gone;
    }
}

/// Every process of the host is gone, and what was not synced too, unless it was `kept` by chance. The host is up again at once.
pub(crate) fn power_cut(state: &mut State, agent: usize, kept: bool) -> bool {
    for server in 0..state.servers.len() {
        state.unlink(agent, server);
    }
    let host = &mut state.agents[agent];
    host.hosts = [Host::NOTHING; RUNS];
    host.np = None;
    for directory in &mut host.disk {
        if directory.place == Place::Unsynced {
            directory.place = Place::Live;
            if !kept {
                *directory = Directory::NOTHING;
            }
        }
        if directory.started == Written::Unsynced {
            directory.started = if kept { Written::Synced } else { Written::No };
        }
        directory.earlier_boot |= directory.started != Written::No;
    }
    true
}

/// The network-processor hears that the last job-processor of the run is gone (`Agent::on_job_processor_gone`).
fn forget_watch(state: &mut State, agent: usize, run: usize) {
    let agent = &mut state.agents[agent];
    let host = &agent.hosts[run];
    if host.launched == 0
        && !host.locked
        && let Some(run) = agent.np.as_mut().and_then(|np| np.runs[run].as_mut())
    {
        run.watched = false;
    }
}

fn of(state: &mut State, agent: usize, run: usize) -> (&mut Directory, &mut Host) {
    let agent = &mut state.agents[agent];
    (&mut agent.disk[run], &mut agent.hosts[run])
}
