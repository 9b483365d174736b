//! The monitor's loop: one thread, everything by descriptor.
//!
//! ```text
//! SIGTERM, SIGINT ──▶ stop: SIGTERM to the network-processor, wait for it, go; jobs and job-processors stay
//! SIGHUP          ──▶ read the configuration anew, and to the network-processor
//! SIGUSR2, or another program on disk ──▶ replace itself (see `replace`)
//! SIGCHLD         ──▶ reap, but never a job whose end is not recorded
//! its end         ──▶ exit code 0: a controlled stop, go too; anything else: start it again after `restart_delay`, as often as needed
//! connections     ──▶ job-processors hand over pidfds; one that closes without "done" leaves an orphan
//! ```

use crate::child::{NetworkProcessor, Starter};
use crate::handover::Handover;
use crate::replace::Replacement;
use crate::watch::{Watch, Watched};
use crate::witness::{Held, Orphan, Tried};
use anyhow::Context;
use config::AgentConfig;
use job::RunId;
use os::seqpacket::{self, Received};
use os::signal::{self, Signal};
use os::{clock, procfs, wait};
use spool::monitor::{NO, Request, YES};
use spool::{DataRoot, MONITOR_SOCKET};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use trace::Tracing;

const HUP: i32 = 1;
const INT: i32 = 2;
const USR2: i32 = 12;
const TERM: i32 = 15;
const CHLD: i32 = 17;
/// Between two tries to start the network-processor where even that fails, milliseconds.
const START_AGAIN_MS: u64 = 1_000;
/// The network-processor has this long for its controlled stop, milliseconds; nothing is lost if it takes longer, it is only shown as a crash.
pub(crate) const STOP_GRACE_MS: u64 = 10_000;
/// Waiting job-processors before the monitor takes them.
const BACKLOG: i32 = 4096;

/// The descriptor of the monitor's signals.
pub(crate) fn signals() -> io::Result<OwnedFd> {
    signal::descriptor(&[HUP, INT, USR2, TERM, CHLD])
}

/// A connection, and the job that came over it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    pub(crate) held: Option<Held>,
}

/// The monitor. It owns the table of held jobs and the network-processor.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) root: DataRoot,
    pub(crate) config: AgentConfig,
    pub(crate) path: PathBuf,
    pub(crate) starter: Starter,
    pub(crate) network_processor: NetworkProcessor,
    pub(crate) watch: Watch,
    pub(crate) signals: OwnedFd,
    /// Held while this process lives, whichever program it runs.
    pub(crate) lock: File,
    pub(crate) listener: OwnedFd,
    pub(crate) connections: HashMap<u64, Connection>,
    pub(crate) next_connection: u64,
    pub(crate) orphans: HashMap<RunId, Orphan>,
    /// Set by a controlled stop: when the network-processor is killed if it has not gone, `CLOCK_BOOTTIME` milliseconds.
    pub(crate) stop_by_ms: Option<u64>,
    pub(crate) replacement: Replacement,
    pub(crate) over: bool,
}

/// What a monitor begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) config: AgentConfig,
    /// The configuration's file.
    pub(crate) path: PathBuf,
    pub(crate) root: DataRoot,
    pub(crate) signals: OwnedFd,
}

impl Monitor {
    /// Becomes the reaper of orphans, opens the socket, and takes over or starts the network-processor.
    pub(crate) fn start(beginning: Beginning, lock: File) -> anyhow::Result<Monitor> {
        os::process::become_subreaper().context("cannot become the reaper of orphans")?;
        if let Err(e) = os::process::set_oom_score_adj(-900) {
            tracing::debug!("no protection from the out-of-memory killer: {e}");
        }
        os::process::raise_open_files().context("the limit of open files")?;
        let listener = seqpacket::listen(beginning.root.path(), MONITOR_SOCKET, BACKLOG)
            .context("cannot listen on monitor.sock")?;
        let mut monitor = Monitor::new(beginning, lock, listener)?;
        let network_processor = monitor.starter.take_or_start(&monitor.root)?;
        monitor.set_network_processor(network_processor)?;
        Ok(monitor)
    }

    /// Goes on where the image of this process before the exec stopped.
    pub(crate) fn go_on(beginning: Beginning, handover: Handover) -> anyhow::Result<Monitor> {
        let Handover { lock, listener, network_processor, connections, orphans } = handover;
        let (jobs, orphaned) = (connections.len(), orphans.len());
        let mut monitor = Monitor::new(beginning, lock, listener)?;
        for connection in connections {
            monitor.add_connection(connection)?;
        }
        for orphan in orphans {
            if orphan.due_ms.is_none() {
                monitor.watch.add(&orphan.held.pidfd, Watched::Orphan(orphan.held.run_id))?;
            }
            monitor.orphans.insert(orphan.held.run_id, orphan);
        }
        monitor.set_network_processor(network_processor)?;
        monitor.reap()?; // what ended meanwhile was told to nobody
        tracing::info!(
            connections = jobs,
            orphans = orphaned,
            version = env!("CARGO_PKG_VERSION"),
            "the monitor goes on in its new program"
        );
        Ok(monitor)
    }

    fn new(beginning: Beginning, lock: File, listener: OwnedFd) -> anyhow::Result<Monitor> {
        let Beginning { config, path, root, signals } = beginning;
        let path = std::path::absolute(path).context("the configuration's path")?;
        let starter = Starter::new(config.libexec.as_deref(), &path)?;
        let replacement = Replacement::new(starter.program())?;
        let mut watch = Watch::new()?;
        watch.add(&signals, Watched::Signals)?;
        watch.add(&listener, Watched::Listener)?;
        Ok(Monitor {
            root,
            config,
            path,
            starter,
            network_processor: NetworkProcessor::Due(0),
            watch,
            signals,
            lock,
            listener,
            connections: HashMap::new(),
            next_connection: 0,
            orphans: HashMap::new(),
            stop_by_ms: None,
            replacement,
            over: false,
        })
    }

    /// Runs until a controlled stop.
    pub(crate) fn run(mut self, tracing: &Tracing) -> anyhow::Result<()> {
        while !self.over {
            let now_ms = clock::boottime_ms();
            let timeout = self.next_due_ms().map(|at_ms| at_ms.saturating_sub(now_ms));
            for watched in self.watch.wait(timeout)? {
                match watched {
                    Watched::Signals => self.on_signals()?,
                    Watched::Listener => self.on_listener()?,
                    Watched::NetworkProcessor => self.on_network_processor_end()?,
                    Watched::Connection(id) => self.on_connection(id)?,
                    Watched::Orphan(run_id) => self.on_orphan_end(run_id),
                }
            }
            self.on_time(clock::boottime_ms())?;
            self.look_at_programs(clock::boottime_ms(), tracing);
        }
        Ok(())
    }

    fn next_due_ms(&self) -> Option<u64> {
        let start = match self.network_processor {
            NetworkProcessor::Due(at_ms) => Some(at_ms),
            NetworkProcessor::Running { .. } => self.stop_by_ms.or(self.replacement.kill_at_ms),
        };
        let orphans = self.orphans.values().filter_map(|orphan| orphan.due_ms);
        orphans.chain(start).chain([self.replacement.look_at_ms]).min()
    }

    fn on_signals(&mut self) -> anyhow::Result<()> {
        while let Some(signal) = signal::next(&self.signals)? {
            match signal {
                TERM | INT => self.stop(),
                HUP => self.reload(),
                USR2 => self.replacement.wanted = true,
                _ => self.reap()?,
            }
        }
        Ok(())
    }

    /// Reads the configuration anew; what the network-processor uses of it, that says itself.
    fn reload(&mut self) {
        match AgentConfig::load(&self.path) {
            Ok(config) => {
                let changes = self.config.changes(&config);
                for change in changes.iter().filter(|change| change.key == "restart_delay") {
                    tracing::info!("SIGHUP: {change}");
                }
                self.config.restart_delay = config.restart_delay;
            }
            Err(e) => tracing::error!("SIGHUP: the configuration stays as it was: {e}"),
        }
        self.network_processor.signal(Signal::HUP);
    }

    fn stop(&mut self) {
        tracing::info!(
            "controlled stop: the network-processor is asked to go; running jobs and their job-processors stay"
        );
        self.stop_by_ms.get_or_insert(clock::boottime_ms() + STOP_GRACE_MS);
        match &self.network_processor {
            NetworkProcessor::Running { .. } => self.network_processor.signal(Signal::TERM),
            NetworkProcessor::Due(_) => self.over = true,
        }
    }

    /// Reaps every ended child but the network-processor (whose end is looked at by its pidfd) and jobs whose end is not recorded.
    fn reap(&mut self) -> anyhow::Result<()> {
        let mut kept = self.kept();
        let mut up_to_date = false;
        loop {
            match wait::peek_any() {
                Ok(Some(ended)) if kept.contains(&ended.pid) => break, // it hides the others: go through the list
                Ok(Some(_)) if !up_to_date => {
                    // A job-processor introduces its child before the gate opens, but that may still wait to be read.
                    self.read_all_connections()?;
                    (kept, up_to_date) = (self.kept(), true);
                }
                Ok(Some(ended)) => drop(wait::reap(ended.pid)?),
                Ok(None) => return Ok(()),
                Err(e) if wait::is_no_child(&e) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
        if !up_to_date {
            self.read_all_connections()?;
            kept = self.kept();
        }
        for pid in procfs::children(std::process::id()) {
            if !kept.contains(&pid) && procfs::stat(pid)?.is_some_and(|stat| stat.state == b'Z') {
                let _ = wait::reap(pid);
            }
        }
        Ok(())
    }

    /// Children that are not to be reaped yet.
    fn kept(&self) -> HashSet<u32> {
        let held = self.connections.values().filter_map(|c| Some(c.held.as_ref()?.pid));
        held.chain(self.orphans.values().map(|o| o.held.pid)).chain(self.network_processor.pid()).collect()
    }

    pub(crate) fn read_all_connections(&mut self) -> anyhow::Result<()> {
        self.on_listener()?;
        let all: Vec<u64> = self.connections.keys().copied().collect();
        for id in all {
            self.on_connection(id)?;
        }
        Ok(())
    }

    fn on_network_processor_end(&mut self) -> anyhow::Result<()> {
        let NetworkProcessor::Running { pid, pidfd } = &self.network_processor else { return Ok(()) };
        let pid = *pid;
        // An earlier monitor's child is not ours to wait for; the kernel may still tell.
        let status = match wait::peek(pidfd) {
            Ok(waited) => waited.map(|w| w.wait_status),
            Err(_) => pidfd.wait_status(pid).unwrap_or(None),
        };
        self.watch.remove(pidfd, Watched::NetworkProcessor);
        let _ = wait::reap(pid);
        let replaced = self.replacement.kill_at_ms.take().is_some();
        let restart_delay_ms = self.config.restart_delay.as_ms();
        let due_ms = clock::boottime_ms() + if replaced { 0 } else { restart_delay_ms };
        self.network_processor = NetworkProcessor::Due(due_ms);
        let how = status.and_then(job::End::from_wait_status);
        if replaced && self.stop_by_ms.is_none() {
            tracing::info!(pid, ?how, "the network-processor made room for its newer program");
        } else if how == Some(job::End::Exited { code: 0 }) {
            tracing::info!(pid, "the network-processor stopped in a controlled manner: the agent is stopped");
            self.over = true;
        } else if self.stop_by_ms.is_some() {
            tracing::warn!(
                pid,
                ?how,
                "the network-processor ended abnormally while it was to stop: the agent is stopped"
            );
            self.over = true;
        } else {
            tracing::error!(
                pid,
                ?how,
                "the network-processor ended abnormally; it is started again in {restart_delay_ms} ms"
            );
        }
        Ok(())
    }

    fn on_time(&mut self, now_ms: u64) -> anyhow::Result<()> {
        if let NetworkProcessor::Due(at_ms) = self.network_processor
            && now_ms >= at_ms
            && !self.over
        {
            match self.starter.take_or_start(&self.root) {
                Ok(running) => self.set_network_processor(running)?,
                Err(e) => {
                    tracing::error!("{e:#}; trying again");
                    self.network_processor =
                        NetworkProcessor::Due(now_ms + self.config.restart_delay.as_ms().max(START_AGAIN_MS));
                }
            }
        }
        if self.stop_by_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            tracing::warn!("the network-processor does not stop; it is killed");
            self.network_processor.signal(Signal::KILL);
            self.stop_by_ms = Some(now_ms + STOP_GRACE_MS);
        }
        if self.replacement.kill_at_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            tracing::warn!("the network-processor does not make room for its newer program; it is killed");
            self.network_processor.signal(Signal::KILL);
            self.replacement.kill_at_ms = Some(now_ms + STOP_GRACE_MS);
        }
        let due: Vec<RunId> = self
            .orphans
            .iter()
            .filter(|(_, o)| o.due_ms.is_some_and(|at| now_ms >= at))
            .map(|(id, _)| *id)
            .collect();
        for run_id in due {
            self.try_record(run_id, now_ms);
        }
        Ok(())
    }

    fn set_network_processor(&mut self, running: NetworkProcessor) -> anyhow::Result<()> {
        if let NetworkProcessor::Running { pidfd, .. } = &running {
            self.watch.add(pidfd, Watched::NetworkProcessor)?;
        }
        self.network_processor = running;
        Ok(())
    }

    fn on_listener(&mut self) -> anyhow::Result<()> {
        while let Some(socket) = seqpacket::accept(&self.listener)? {
            self.add_connection(Connection { socket, held: None })?;
        }
        Ok(())
    }

    fn add_connection(&mut self, connection: Connection) -> anyhow::Result<()> {
        let id = self.next_connection;
        self.next_connection += 1;
        self.watch.add(&connection.socket, Watched::Connection(id))?;
        self.connections.insert(id, connection);
        Ok(())
    }

    fn on_connection(&mut self, id: u64) -> anyhow::Result<()> {
        while let Some(connection) = self.connections.get_mut(&id) {
            match seqpacket::receive(&connection.socket) {
                Ok(Received::Nothing) => break,
                Ok(Received::Closed) | Err(_) => self.on_closed(id)?,
                Ok(Received::Message(bytes, passed)) => match (Request::decode(&bytes), passed) {
                    (Some(Request::Hold { run_id, pid }), Some(pidfd)) => {
                        let pidfd = os::pidfd::Pidfd::from_fd(pidfd);
                        connection.held = Some(Held { run_id, pid, pidfd });
                        self.forget_orphan(run_id); // its job-processor lives after all
                    }
                    (Some(Request::Done { .. }), _) => connection.held = None,
                    (Some(Request::Ask { run_id }), _) => self.answer(id, run_id),
                    (Some(Request::Watch { run_id, pid }), Some(pidfd)) => {
                        let pidfd = os::pidfd::Pidfd::from_fd(pidfd);
                        self.watch_orphan(Held { run_id, pid, pidfd })?;
                    }
                    (Some(Request::Hold { .. } | Request::Watch { .. }) | None, _) => {
                        tracing::warn!("a message on monitor.sock that no program of this agent sends");
                        self.on_closed(id)?;
                    }
                },
            }
        }
        Ok(())
    }

    fn answer(&mut self, id: u64, run_id: RunId) {
        let held = self.connections.values().any(|c| c.held.as_ref().is_some_and(|h| h.run_id == run_id));
        let known = held || self.orphans.contains_key(&run_id);
        if let Some(connection) = self.connections.get(&id) {
            let _ = seqpacket::send(&connection.socket, if known { YES } else { NO }, None); // it asks again
        }
    }

    fn on_closed(&mut self, id: u64) -> anyhow::Result<()> {
        let Some(connection) = self.connections.remove(&id) else { return Ok(()) };
        self.watch.remove(&connection.socket, Watched::Connection(id));
        if let Some(held) = connection.held {
            tracing::warn!(run = %held.run_id, pid = held.pid, "a job-processor went without recording an outcome; its job is watched here");
            self.watch_orphan(held)?;
        }
        Ok(())
    }

    fn watch_orphan(&mut self, held: Held) -> anyhow::Result<()> {
        if !self.orphans.contains_key(&held.run_id) {
            self.watch.add(&held.pidfd, Watched::Orphan(held.run_id))?;
            self.orphans.insert(held.run_id, Orphan::new(held));
        }
        Ok(())
    }

    fn on_orphan_end(&mut self, run_id: RunId) {
        if let Some(orphan) = self.orphans.get_mut(&run_id) {
            // The pidfd stays readable: what follows goes by the clock.
            self.watch.remove(&orphan.held.pidfd, Watched::Orphan(run_id));
            self.try_record(run_id, clock::boottime_ms());
        }
    }

    fn try_record(&mut self, run_id: RunId, now_ms: u64) {
        let Some(orphan) = self.orphans.get_mut(&run_id) else { return };
        match orphan.try_record(&self.root, now_ms) {
            Tried::Over => self.forget_orphan(run_id),
            Tried::Again(at_ms) => orphan.due_ms = Some(at_ms),
        }
    }

    fn forget_orphan(&mut self, run_id: RunId) {
        if let Some(orphan) = self.orphans.remove(&run_id) {
            self.watch.remove(&orphan.held.pidfd, Watched::Orphan(run_id));
            let _ = self.reap(); // it may be a zombie that was kept until now
        }
    }
}
