//! What jobs left running, where no job-processor could do with it what the job's spec says: it died, or it was started by an earlier
//! network-processor, so that nobody knows how it went. The run is not settled before that is done.
//!
//! | the spec says | what is done                                                             |
//! |---------------|--------------------------------------------------------------------------|
//! | `kill`        | SIGKILL until nothing is left                                            |
//! | `wait`        | looked at in every slow round; after a day as `kill`                     |
//! | `ignore`      | what stands still since a suspend goes on                                |
//!
//! What is left is in the run's control group. Of a run that had none it is known by the run's id in its environment; where users are
//! switched by a setuid job-processor alone we may not look there, and such processes stay.

use crate::agent::Agent;
use crate::event::Event;
use job::{LEFTOVERS_WAIT_MS_MAX, Leftovers, RunId};
use os::cgroup::Cgroup;
use os::clock;
use os::pidfd::Identity;
use os::signal::Signal;
use os::tree;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks at what is being ended, milliseconds, and how many there are.
const STEP_MS: u64 = 20;
const TRIES: u32 = 50;

/// Runs that are over and may have left something.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// To be looked at.
    due: Vec<RunId>,
    /// Looked at; something is left that is waited for.
    later: Vec<RunId>,
    /// Some are being looked at.
    busy: bool,
}

/// What is to be done about one run.
#[derive(Debug)]
struct Task {
    run_id: RunId,
    what: Leftovers,
    group: Option<PathBuf>,
}

impl Agent {
    /// The run is over. If nobody did what its spec says of leftovers, that is done soon.
    pub(crate) fn clear_up(&mut self, run_id: RunId) {
        let boot_id = self.disk.boot_id;
        let Some(run) = self.runs.get_mut(&run_id).filter(|run| run.unswept) else { return };
        let started = run.started.as_ref();
        // After a restart of the host nothing of it is left.
        run.unswept = started.is_some_and(|started| started.boot_id.as_deref() == Some(&boot_id[..]));
        if run.unswept {
            run.left_ms = clock::boottime_ms();
            self.leaving.due.push(run_id);
            self.look_at_leftovers();
        }
    }

    /// Looks again at what is waited for.
    pub(crate) fn retry_leftovers(&mut self) {
        self.leaving.due.append(&mut self.leaving.later);
        self.look_at_leftovers();
    }

    fn look_at_leftovers(&mut self) {
        if self.leaving.busy || self.leaving.due.is_empty() {
            return;
        }
        let now_ms = clock::boottime_ms();
        let due = std::mem::take(&mut self.leaving.due);
        let task = |run_id: RunId| {
            let run = self.runs.get(&run_id)?;
            let waited = run.leftovers == Leftovers::Wait
                && now_ms.saturating_sub(run.left_ms) >= LEFTOVERS_WAIT_MS_MAX;
            let what = if waited { Leftovers::Kill } else { run.leftovers };
            let group = run.started.as_ref().and_then(|started| started.cgroup.clone());
            Some(Task { run_id, what, group: group.map(PathBuf::from) })
        };
        let tasks: Vec<Task> = due.into_iter().filter_map(task).collect();
        self.leaving.busy = true;
        self.disk.ask(move |_| Event::LeftoversSeen(work(tasks)));
    }

    /// Of these runs something is left and waited for (`true`), or nothing more is to be done.
    pub(crate) fn on_leftovers_seen(&mut self, seen: Vec<(RunId, bool)>) {
        self.leaving.busy = false;
        for (run_id, waits) in seen {
            if waits {
                self.leaving.later.push(run_id);
            } else if let Some(run) = self.runs.get_mut(&run_id) {
                run.unswept = false;
                self.settle_if_over(run_id);
            }
        }
        self.look_at_leftovers();
    }
}

/// Does what is to be done; says of each run whether something is left that is waited for.
fn work(mut tasks: Vec<Task>) -> Vec<(RunId, bool)> {
    let mut done = Vec::with_capacity(tasks.len());
    for _ in 0..TRIES {
        let loose = loose(&tasks);
        tasks.retain(|task| {
            let left = task.act(loose.get(&task.run_id.to_string()).map_or(&[], Vec::as_slice));
            let over = !left || task.what != Leftovers::Kill;
            if over {
                done.push((task.run_id, left && task.what == Leftovers::Wait));
            }
            !over
        });
        if tasks.is_empty() {
            return done;
        }
        std::thread::sleep(Duration::from_millis(STEP_MS));
    }
    for task in tasks {
        tracing::warn!(run = %task.run_id, group = ?task.group, "processes of a job that is over cannot be ended");
        done.push((task.run_id, false));
    }
    done
}

/// The processes of runs without a control group, by the run's id.
fn loose(tasks: &[Task]) -> HashMap<String, Vec<Identity>> {
    let mut found: HashMap<String, Vec<Identity>> = HashMap::new();
    if tasks.iter().all(|task| task.group.is_some()) {
        return found; // nobody has to look through all processes of the host
    }
    for (run_id, process) in tree::with_variable(spool::RUN_ID_VARIABLE).unwrap_or_default() {
        found.entry(run_id).or_default().push(process);
    }
    // An agent that was started by a job is not that job's to lose.
    if let Ok(own) = std::env::var(spool::RUN_ID_VARIABLE) {
        found.remove(&own);
    }
    found
}

impl Task {
    /// Whether something is left.
    fn act(&self, loose: &[Identity]) -> bool {
        let Some(path) = &self.group else {
            let signal = if self.what == Leftovers::Kill { Signal::KILL } else { Signal::CONT };
            return tree::signal_all(loose, signal) > 0;
        };
        let Some(group) = Cgroup::at(path) else { return false };
        let done = match self.what {
            Leftovers::Kill => group.kill(),
            Leftovers::Wait | Leftovers::Ignore => group.freeze(false),
        };
        if let Err(e) = done {
            tracing::warn!(run = %self.run_id, "what its job left behind cannot be reached: {e}");
        }
        group.remove().is_err() // the kernel refuses it as long as a process is in it
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn left_behind(run_id: RunId) -> Child {
        let mut command = Command::new("/bin/sleep");
        command.arg("600").env(spool::RUN_ID_VARIABLE, run_id.to_string()).spawn().unwrap()
    }

    fn task(run_id: RunId, what: Leftovers) -> Task {
        Task { run_id, what, group: None }
    }

    #[test]
    fn of_a_run_without_a_control_group_only_its_own_processes_are_ended() {
        let (run, other) = (RunId::new(1, 0xaaaa), RunId::new(1, 0xbbbb));
        let (mut its, mut others) = (left_behind(run), left_behind(other));
        assert_eq!(work(vec![task(run, Leftovers::Wait)]), [(run, true)]);
        assert_eq!(its.try_wait().unwrap(), None, "it is waited for");
        assert_eq!(work(vec![task(run, Leftovers::Ignore)]), [(run, false)]);
        assert_eq!(its.try_wait().unwrap(), None);
        assert_eq!(work(vec![task(run, Leftovers::Kill)]), [(run, false)]);
        assert!(!its.wait().unwrap().success());
        assert_eq!(others.try_wait().unwrap(), None, "of another run");
        others.kill().unwrap();
        others.wait().unwrap();
        assert_eq!(work(vec![task(run, Leftovers::Wait)]), [(run, false)], "nothing is left");
    }
}
