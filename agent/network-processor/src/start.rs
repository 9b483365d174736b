//! The start: lock, identity, sockets, the directories of the last time; then the loop.

use crate::agent::Agent;
use crate::delivery::Settling;
use crate::disk::Disk;
use crate::event::Event;
use crate::housekeeping::{self, Tidying};
use crate::launch::Launcher;
use crate::leftovers::Leaving;
use crate::links::Links;
use crate::orphans::Orphans;
use crate::retention::Settled;
use crate::run::{Keeper, Run};
use crate::secrets::FileSecrets;
use crate::session::Sessions;
use crate::streams::Streams;
use anyhow::Context;
use config::{AgentConfig, CgroupMode, UserSwitch};
use job::{AgentId, RunId};
use os::cgroup::{self, Cgroup};
use protocol::outbox::Outbox;
use spool::{DataRoot, Identity, Shelf, WAKE_SOCKET};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedSender};

/// Ignored, it would let the kernel reap orphans unseen.
const CHLD: i32 = 17;

/// Runs until a controlled stop.
pub(crate) async fn run(config: AgentConfig, path: PathBuf) -> anyhow::Result<()> {
    let passable = config.users.switch != UserSwitch::None;
    let root = DataRoot::create(&config.data_root, config.allow_network_file_system, passable)?;
    let _lock = root.lock("network-processor")?;
    os::signal::restore(&[CHLD]);
    os::process::become_subreaper().context("cannot become the reaper of orphans")?;
    os::process::raise_open_files().context("the limit of open files")?;
    let swept = root.sweep_unprepared().context("cannot remove what was being prepared")?;
    let fresh = AgentId(random()?);
    let identity = Identity::open(root.path(), fresh)?;
    let (events, queue) = mpsc::unbounded_channel();
    let _ = os::clock::aging_ms(); // leaps of the clock are noticed from now on
    let boot_id = os::procfs::boot_id().context("this boot's id")?;
    let disk = Disk::new(root.clone(), boot_id, events.clone()).context("cannot open runs/")?;
    // A name that a crash left unsynced must not be lost after its run was started.
    disk.sync_runs().context("cannot sync runs/")?;
    let launcher = Launcher::new(&config, cgroup_parent(&config, identity.agent_id))?;
    let secrets = Arc::new(FileSecrets::load(&config)?);
    let runs = root.list(Shelf::Live).context("cannot list runs/")?;
    tracing::info!(agent = %config.name, id = %identity.agent_id, incarnation = identity.incarnation, runs = runs.len(), swept, "network-processor starts");
    let links = Links::open(&config, secrets.clone(), events.clone()).await?;
    take_hints(&root, events.clone())?;
    take_signals(events.clone())?;
    tokio::spawn(housekeeping::tick(events.clone()));
    let mut agent = Agent {
        config,
        disk,
        launcher,
        identity: crate::identity::Identity::new(identity),
        path,
        links,
        settled: Settled::default(),
        settling: Settling::default(),
        runs: HashMap::new(),
        outbox: Outbox::new(),
        sessions: Sessions::default(),
        streams: Streams::default(),
        secrets,
        events,
        refusing: String::new(),
        refused: BTreeSet::new(),
        swept_ms: os::clock::boottime_ms(),
        tidying: Tidying::default(),
        begun_ms: os::clock::boottime_ms(),
        housekept_ms: os::clock::boottime_ms(),
        waiting: VecDeque::new(),
        resending: false,
        catching_up: None,
        leaving: Leaving::default(),
        orphans: Orphans::default(),
        unread: runs.len(),
    };
    agent.scan(runs);
    agent.run(queue).await
}

impl Agent {
    /// Looks at the runs of the last time, in parallel; a directory that hangs holds up nobody.
    fn scan(&mut self, runs: Vec<RunId>) {
        for run_id in runs {
            self.runs.insert(run_id, Run { awaited: true, ..Run::new(Keeper::Unread) });
            self.read(run_id);
        }
    }
}

fn take_hints(root: &DataRoot, events: UnboundedSender<Event>) -> anyhow::Result<()> {
    let socket = os::seqpacket::bind_datagram(root.path(), WAKE_SOCKET).context("cannot bind wake.sock")?;
    let socket = UnixDatagram::from_std(socket.into()).context("wake.sock")?;
    tokio::spawn(async move {
        let mut message = [0u8; 64];
        while let Ok(length) = socket.recv(&mut message).await {
            if let Some(run_id) = spool::woken(&message[..length])
                && events.send(Event::Woken(run_id)).is_err()
            {
                return;
            }
        }
    });
    Ok(())
}

fn take_signals(events: UnboundedSender<Event>) -> anyhow::Result<()> {
    let (mut term, mut int, mut hup) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                _ = term.recv() => Event::Stop,
                _ = int.recv() => Event::Stop,
                _ = hup.recv() => Event::Reload,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// The control group under which each run gets its own, where the host lets us.
fn cgroup_parent(config: &AgentConfig, agent_id: AgentId) -> Option<PathBuf> {
    if config.cgroup == CgroupMode::Off {
        return None;
    }
    let made = Cgroup::create(&cgroup::mount_point()?, "lastword")
        .and_then(|top| Cgroup::create(top.path(), &agent_id.to_string()));
    match made {
        Ok(group) => Some(group.path().to_owned()),
        Err(e) => {
            tracing::info!("runs get no control groups, their process trees are followed instead: {e}");
            None
        }
    }
}

fn random() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no random numbers: {e}"))?;
    Ok(bytes)
}
