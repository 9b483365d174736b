//! The processes that a process left running, without a control group: everybody is reached through a pidfd whose start time was
//! checked, so that no stranger is hit.

use crate::pidfd::{Identity, Pidfd};
use crate::procfs;
use crate::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// All live descendants of `ancestor` (not itself), zombies left out. Complete for a subreaper: whoever was orphaned is its child.
pub fn descendants(ancestor: u32) -> io::Result<Vec<Identity>> {
    let all: BTreeMap<u32, procfs::Stat> = procfs::all()?.into_iter().collect();
    let mut found = BTreeSet::from([ancestor]);
    loop {
        let more: Vec<u32> = all
            .iter()
            .filter(|(pid, s)| found.contains(&s.ppid) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found.remove(&ancestor);
    let live = found
        .into_iter()
        .filter_map(|pid| Some((pid, all.get(&pid)?)))
        .filter(|(_, stat)| stat.state != b'Z');
    Ok(live.map(|(pid, stat)| Identity { pid, start_ticks: stat.start_ticks, pidfd_inode: 0 }).collect())
}

/// The live processes that were started with a variable of that name in their environment, each with its value. Finds them wherever they hang by now, if
/// they kept it; those that we may not look into are left out.
pub fn with_variable(name: &str) -> io::Result<Vec<(String, Identity)>> {
    let name = format!("{name}=");
    let value = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let own = environment.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(name.as_bytes()))?;
        Some(String::from_utf8_lossy(own).into_owned())
    };
    // The start time was read before: if the pid is another's by then, nobody with that start time is there to be signalled.
    let found =
        procfs::all()?.into_iter().filter(|(_, stat)| stat.state != b'Z').filter_map(|(pid, stat)| {
            Some((value(pid)?, Identity { pid, start_ticks: stat.start_ticks, pidfd_inode: 0 }))
        });
    Ok(found.collect())
}

/// Passes over a tree that grows while it is stopped; a fork bomb is not caught by patience.
const STOP_PASSES_MAX: usize = 100;
/// So many passes that find nothing new end the work.
const STOP_PASSES_QUIET: usize = 2;

/// Stops every process that `find` finds (SIGSTOP), until two passes find nothing new: a process that was not stopped yet may have made
/// more. Returns how many there were.
pub fn stop_all(mut find: impl FnMut() -> io::Result<Vec<Identity>>) -> io::Result<usize> {
    let mut stopped = BTreeSet::new();
    let mut quiet = 0;
    for _ in 0..STOP_PASSES_MAX {
        let new: Vec<Identity> =
            find()?.into_iter().filter(|p| stopped.insert((p.pid, p.start_ticks))).collect();
        signal_all(&new, Signal::STOP);
        quiet = if new.is_empty() { quiet + 1 } else { 0 };
        if quiet == STOP_PASSES_QUIET {
            return Ok(stopped.len());
        }
    }
    Err(io::Error::other("new processes appear faster than they can be stopped"))
}

/// Sends a signal to each that is still the process that was meant; returns how many were.
pub fn signal_all(processes: &[Identity], signal: Signal) -> usize {
    let hit = |identity: &Identity| matches!(Pidfd::open_checked(identity), Ok(Some(pidfd)) if pidfd.signal(signal).unwrap_or(false));
    processes.iter().filter(|identity| hit(identity)).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn a_stopped_tree_stands_still_as_a_whole_and_goes_on() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "sleep 600 & (setsid sleep 600 & sleep 600 & echo ready; wait) & wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = child.id();
        let leader = || procfs::stat(pid).map(|stat| stat.map(|s| s.start_ticks));
        let find = || {
            let mut found = descendants(pid)?;
            found.extend(leader()?.map(|start_ticks| Identity { pid, start_ticks, pidfd_inode: 0 }));
            Ok(found)
        };
        assert!(stop_all(find).unwrap() >= 3);
        let states = |found: Vec<Identity>| -> Vec<u8> {
            found.iter().filter_map(|p| procfs::stat(p.pid).unwrap()).map(|stat| stat.state).collect()
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while states(find().unwrap()).iter().any(|state| *state != b'T') {
            assert!(std::time::Instant::now() < deadline, "{:?}", states(find().unwrap()));
            std::thread::yield_now();
        }
        let all = find().unwrap();
        signal_all(&all, Signal::CONT);
        while states(find().unwrap()).contains(&b'T') {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        signal_all(&all, Signal::KILL);
        child.wait().unwrap();
    }

    #[test]
    fn processes_are_found_by_what_they_were_started_with_though_nobody_knows_their_parents() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "setsid sleep 600 > /dev/null & echo $!"])
            .env("OS_TREE_TEST", "by-variable")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        child.wait().unwrap();
        let pid: u32 = line.trim().parse().unwrap();
        let found = with_variable("OS_TREE_TEST").unwrap();
        let own: Vec<Identity> = found.iter().filter(|(_, p)| p.pid == pid).map(|(_, p)| *p).collect();
        assert_eq!(own.len(), 1, "{found:?}");
        assert!(found.iter().all(|(value, _)| value == "by-variable"));
        assert_eq!(signal_all(&own, Signal::KILL), 1);
        assert!(with_variable("OS_TREE_TEST_NOBODY").unwrap().is_empty());
    }

    #[test]
    fn descendants_in_other_sessions_are_found_and_can_be_ended() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "setsid sleep 600 & sleep 600 & echo ready; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let found = loop {
            let found = descendants(child.id()).unwrap();
            if found.len() >= 2 || std::time::Instant::now() > deadline {
                break found;
            }
            std::thread::yield_now();
        };
        assert!(found.len() >= 2, "{found:?}");
        assert_eq!(signal_all(&found, Signal::KILL), found.len());
        child.wait().unwrap();
    }
}
