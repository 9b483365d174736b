//! The start: lock, identity, sockets, the directories of the last time; then the loop.

use crate::agent::Agent;
use crate::disk::Disk;
use crate::event::Event;
use crate::housekeeping;
use crate::launch::Launcher;
use crate::run::{Keeper, Run};
use crate::session::Sessions;
use crate::streams::Streams;
use anyhow::Context;
use config::{AgentConfig, CgroupMode, UserSwitch};
use job::{AgentId, RunId};
use link::{Endpoint, Link, Options, Role, Secret, SecretError, Secrets};
use os::cgroup::{self, Cgroup};
use protocol::outbox::Outbox;
use spool::{DataRoot, Identity, Shelf, WAKE_SOCKET};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::net::{TcpListener, UnixDatagram};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedSender};

/// Links that wait to be taken by the loop.
const LINKS_WAITING_MAX: usize = 16;

/// Runs until a controlled stop.
pub(crate) async fn run(config: AgentConfig) -> anyhow::Result<()> {
    let passable = config.users.switch != UserSwitch::None;
    let root = DataRoot::create(&config.data_root, config.allow_network_file_system, passable)?;
    let _lock = root.lock("network-processor")?;
    os::process::raise_open_files().context("the limit of open files")?;
    let swept = root.sweep_unprepared().context("cannot remove what was being prepared")?;
    let fresh = AgentId(random()?);
    let identity = Identity::open(root.path(), fresh)?;
    let (events, queue) = mpsc::unbounded_channel();
    let boot_id = os::procfs::boot_id().context("this boot's id")?;
    let disk = Disk::new(root.clone(), boot_id, events.clone()).context("cannot open runs/")?;
    // A name that a crash left unsynced must not be lost after its run was started.
    disk.sync_runs().context("cannot sync runs/")?;
    let launcher = Launcher::new(&config, cgroup_parent(&config, identity.agent_id))?;
    let secrets = Arc::new(FileSecrets::load(&config)?);
    let runs = root.list(Shelf::Live).context("cannot list runs/")?;
    tracing::info!(agent = %config.name, id = %identity.agent_id, incarnation = identity.incarnation, runs = runs.len(), swept, "network-processor starts");
    serve(&config, secrets.clone(), &events).await?;
    take_hints(&root, events.clone())?;
    take_signals(events.clone())?;
    tokio::spawn(housekeeping::tick(events.clone()));
    let mut agent = Agent {
        config,
        disk,
        launcher,
        identity,
        identity_dirty: false,
        runs: HashMap::new(),
        outbox: Outbox::new(),
        sessions: Sessions::default(),
        streams: Streams::default(),
        secrets,
        events,
        refusing: String::new(),
        swept_ms: os::clock::boottime_ms(),
        begun_ms: os::clock::boottime_ms(),
        housekept_ms: os::clock::boottime_ms(),
        waiting: VecDeque::new(),
        resending: false,
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

async fn serve(
    config: &AgentConfig,
    secrets: Arc<FileSecrets>,
    events: &UnboundedSender<Event>,
) -> anyhow::Result<()> {
    let allow =
        config.allow.iter().map(|range| range.parse()).collect::<Result<Vec<_>, _>>().context("\"allow\"")?;
    let options = Options { allow, ..Options::default() };
    let endpoint = Endpoint::new(Role::Agent, config.name.clone(), secrets, options)?;
    let (links, mut queue) = mpsc::channel::<Link>(LINKS_WAITING_MAX);
    if let Some(listen) = &config.listen {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen} (\"listen\")"))?;
        let address = listener.local_addr()?;
        os::disk::replace(&config.data_root.join("listen.addr"), format!("{address}\n").as_bytes(), 0o644)
            .unwrap_or_else(|e| tracing::warn!("listen.addr could not be written: {e}"));
        tracing::info!(%address, "listening for servers");
        tokio::spawn(link::listen(endpoint.clone(), listener, links.clone()));
    }
    for address in &config.connect {
        link::split_address(address).context("\"connect\"")?;
        tokio::spawn(link::keep_dialled(endpoint.clone(), address.clone(), None, links.clone()));
    }
    let events = events.clone();
    tokio::spawn(async move {
        while let Some(link) = queue.recv().await {
            if events.send(Event::Linked(Box::new(link))).is_err() {
                return;
            }
        }
    });
    Ok(())
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

/// The agent's secrets: the same for every server.
#[derive(Debug)]
pub(crate) struct FileSecrets {
    files: Vec<PathBuf>,
    secrets: RwLock<Vec<Secret>>,
}

impl FileSecrets {
    fn load(config: &AgentConfig) -> Result<FileSecrets, SecretError> {
        let files: Vec<PathBuf> = [Some(config.secret_file.clone()), config.old_secret_file.clone()]
            .into_iter()
            .flatten()
            .collect();
        let secrets = read_all(&files)?;
        Ok(FileSecrets { files, secrets: RwLock::new(secrets) })
    }

    /// Reads the files anew; on an error the secrets stay.
    pub(crate) fn reload(&self) -> Result<(), SecretError> {
        let anew = read_all(&self.files)?;
        *self.secrets.write().unwrap_or_else(PoisonError::into_inner) = anew;
        Ok(())
    }
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Secret>, SecretError> {
    files.iter().map(|file: &PathBuf| Secret::load(Path::new(file))).collect()
}

impl Secrets for FileSecrets {
    fn of_peer(&self, _name: &str) -> Vec<Secret> {
        self.secrets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
