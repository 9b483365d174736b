//! The job's process tree: signals to all of it, and what it leaves behind.
//!
//! This process is the reaper of its orphans, so every process that the job ever started and that still lives is a descendant of it; with a
//! control group they are also all in there, and can be killed at one instant.

use job::{LEFTOVERS_WAIT_MS_MAX, Leftovers};
use os::cgroup::Cgroup;
use os::signal::Signal;
use os::{child, tree, wait};
use std::io;

/// How often the leftovers are looked at, and for how long they have the soft signal, milliseconds.
const SWEEP_STEP_MS: u64 = 20;
const SWEEP_GRACE_MS: u64 = 2_000;
/// Between two looks at them at the most, milliseconds.
const LEFTOVERS_LOOK_MS_MAX: u64 = 500;
/// What is left after this long cannot be killed by us, milliseconds.
const SWEEP_MS_MAX: u64 = 10_000;

/// A run's control group, removed when it is not needed any more. One that is not empty then stays: something cannot be killed, and the group
/// shows it.
#[derive(Debug)]
pub(crate) struct Group(pub(crate) Cgroup);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

/// The processes of one run.
#[derive(Debug)]
pub(crate) struct Tree {
    leader: u32,
    group: Option<Group>,
}

impl Tree {
    pub(crate) fn new(leader: u32, group: Option<Group>) -> Tree {
        Tree { leader, group }
    }

    /// Its control group, if it has one.
    pub(crate) fn cgroup(&self) -> Option<&Cgroup> {
        self.group.as_ref().map(|group| &group.0)
    }

    /// Stops every process of the job: the control group is frozen, or the whole tree gets SIGSTOP. The leader must not have been reaped.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        if self.cgroup().is_some_and(|cgroup| cgroup.freeze(true).is_ok()) {
            return Ok(());
        }
        tree::stop_all(|| tree::descendants(std::process::id())).map(drop)
    }

    /// Lets every process of the job go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        if let Some(cgroup) = self.cgroup() {
            let _ = cgroup.freeze(false); // one without it was stopped by signals
        }
        tree::signal_all(&tree::descendants(std::process::id())?, Signal::CONT);
        Ok(())
    }

    /// SIGTERM to the job's process group and to every other descendant, then SIGCONT so that stopped ones can act on it.
    /// The leader must not have been reaped.
    pub(crate) fn soft_signal(&self) -> io::Result<()> {
        let descendants = tree::descendants(std::process::id())?;
        tree::signal_all(&descendants, Signal::TERM);
        self.thaw()
    }

    /// SIGKILL to everything at once. The leader must not have been reaped.
    pub(crate) fn kill(&self) -> io::Result<()> {
        if self.cgroup().is_some_and(|cgroup| cgroup.kill().is_ok()) {
            return Ok(());
        }
        let _ = child::signal_group(self.leader, Signal::KILL.as_raw());
        tree::signal_all(&tree::descendants(std::process::id())?, Signal::KILL);
        Ok(())
    }

    /// Reaps orphans that ended, but never the leader.
    pub(crate) fn reap_orphans(&self) -> io::Result<()> {
        loop {
            match wait::peek_any() {
                Ok(Some(ended)) if ended.pid != self.leader => {
                    wait::reap(ended.pid)?;
                }
                Ok(_) => return Ok(()),
                Err(e) if wait::is_no_child(&e) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Does with what the job left behind what its spec says, after its leader was reaped. Returns what there is to tell.
    pub(crate) fn leftovers(&self, what: Leftovers) -> io::Result<Option<String>> {
        if self.is_empty()? {
            return Ok(None); // as a rule: nobody has to look through all processes of the host
        }
        let left = tree::descendants(std::process::id())?.len();
        match what {
            Leftovers::Ignore => {
                self.thaw()?; // they would stand still for ever
                return Ok(Some(format!("{left} processes that the job left behind go on")));
            }
            Leftovers::Wait if self.wait_for_all()? => {
                let told = format!("{left} processes that the job left behind have ended by themselves");
                return Ok((left > 0).then_some(told));
            }
            Leftovers::Wait | Leftovers::Kill => {}
        }
        Ok(match self.sweep()? {
            (0, _) => None,
            (found, 0) => Some(format!("{found} processes that the job left behind were ended")),
            (found, stay) => {
                Some(format!("{stay} of {found} processes that the job left behind cannot be ended"))
            }
        })
    }

    /// Whether all ended by themselves within the limit.
    fn wait_for_all(&self) -> io::Result<bool> {
        self.thaw()?;
        let until_ms = os::clock::boottime_ms() + LEFTOVERS_WAIT_MS_MAX;
        let mut pause_ms = SWEEP_STEP_MS;
        while !self.is_empty()? {
            if os::clock::boottime_ms() >= until_ms {
                return Ok(false);
            }
            std::thread::sleep(std::time::Duration::from_millis(pause_ms));
            pause_ms = LEFTOVERS_LOOK_MS_MAX.min(pause_ms * 2);
        }
        Ok(true)
    }

    /// Ends what the job left behind (soft signal, then SIGKILL) after its leader was reaped. Returns how many there were, and how
    /// many would not go.
    fn sweep(&self) -> io::Result<(usize, usize)> {
        if self.is_empty()? {
            return Ok((0, 0));
        }
        let begin_ms = os::clock::boottime_ms();
        let left = tree::descendants(std::process::id())?;
        tree::signal_all(&left, Signal::TERM);
        self.thaw()?;
        loop {
            let waited_ms = os::clock::boottime_ms().saturating_sub(begin_ms);
            if waited_ms >= SWEEP_GRACE_MS {
                if let Some(cgroup) = self.cgroup() {
                    let _ = cgroup.kill();
                }
                tree::signal_all(&tree::descendants(std::process::id())?, Signal::KILL);
            }
            self.reap_orphans()?;
            if self.is_empty()? {
                return Ok((left.len(), 0));
            }
            if waited_ms >= SWEEP_MS_MAX {
                return Ok((left.len(), tree::descendants(std::process::id())?.len()));
            }
            std::thread::sleep(std::time::Duration::from_millis(SWEEP_STEP_MS));
        }
    }

    /// No descendant is left: the kernel has no child for us to wait for.
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        self.reap_orphans()?;
        match wait::peek_any() {
            Err(e) if wait::is_no_child(&e) => Ok(true),
            Ok(_) => Ok(false),
            Err(e) => Err(e),
        }
    }
}
