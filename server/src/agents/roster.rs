//! Which agents there are: their secrets, and a dialling task for each that the server dials.

use super::Directory;
use super::session::{Context, session};
use crate::core::{Handle, Roster};
use crate::db::{AgentSecrets, Database, DbError};
use link::{Endpoint, Link, Secret, Secrets};
use protocol::handshake::HandshakeError;
use scheduler::{AgentRecord, Dial, Input};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// How the server meets its agents.
#[derive(Default)]
pub struct Options {
    /// The node's name, which the agents see.
    pub node: String,
    /// Only these addresses may connect; all if empty.
    pub allow: Vec<link::IpRange>,
}

/// Everything that has to do with connections to agents.
pub struct Agents {
    shared: Arc<Shared>,
    endpoint: Arc<Endpoint>,
    links: mpsc::Receiver<Link>,
    directory: Directory,
    ancestors: Vec<[u8; 16]>,
}

struct Shared {
    secrets: Arc<Keys>,
    dialled: Mutex<HashMap<String, JoinHandle<()>>>,
    endpoint: Mutex<Option<Arc<Endpoint>>>,
    links: mpsc::Sender<Link>,
    runtime: tokio::runtime::Handle,
}

/// The secrets of every agent, newest first, as the link asks for them.
#[derive(Default)]
struct Keys {
    known: Mutex<HashMap<String, Vec<Secret>>>,
    /// The latest failure of each known agent that the core was not told of yet.
    failures: Mutex<BTreeMap<String, Failure>>,
    failed: Notify,
}

/// A known agent, or somebody in its name, did not prove itself.
struct Failure {
    address: SocketAddr,
    reason: String,
}

impl Secrets for Keys {
    fn of_peer(&self, name: &str) -> Vec<Secret> {
        lock(&self.known).get(name).cloned().unwrap_or_default()
    }

    /// Names that nobody gave are all one in the figures, so that strangers cannot make new ones.
    fn on_failure(&self, name: Option<&str>, address: SocketAddr, reason: &HandshakeError) {
        let known = name.filter(|name| lock(&self.known).contains_key(*name));
        let peer = known.unwrap_or("unknown").to_owned();
        metrics::counter!("lastword_link_auth_failures_total", "peer" => peer).increment(1);
        if let Some(name) = known {
            let failure = Failure { address, reason: shown(reason) };
            lock(&self.failures).insert(name.to_owned(), failure);
            self.failed.notify_one();
        }
    }
}

impl Keys {
    /// Tells the core, for ever. However often agents fail meanwhile, it gets the latest failure of each.
    async fn tell_failures(&self, handle: &Handle) {
        loop {
            self.failed.notified().await;
            let failures = std::mem::take(&mut *lock(&self.failures));
            for (agent, failure) in failures {
                let (address, reason) = (failure.address.to_string(), failure.reason);
                if handle.tell(Input::AgentUnproven { agent, address, reason }).await.is_err() {
                    return; // the server stops
                }
            }
        }
    }
}

/// A failed proof in few words, for who does not read the trace.
fn shown(reason: &HandshakeError) -> String {
    if matches!(reason, HandshakeError::WrongSecret { .. }) {
        "wrong secret".to_owned()
    } else if matches!(reason, HandshakeError::Refused { .. }) {
        "it refused the server's proof (wrong secret, or it expects another server)".to_owned()
    } else {
        reason.to_string()
    }
}

/// So many authenticated connections wait for their session.
const LINKS_MAX: usize = 64;
/// So many secrets of an agent are valid at once.
const SECRETS_MAX: usize = 2;

impl Agents {
    /// Reads the secrets. Nothing connects before [`Agents::run`].
    pub fn new(database: &dyn Database, options: Options) -> anyhow::Result<Agents> {
        let secrets = Arc::new(Keys::default());
        load_secrets(database, &secrets)?;
        let (sender, links) = mpsc::channel(LINKS_MAX);
        let link_options = link::Options { allow: options.allow, ..link::Options::default() };
        let keys: Arc<dyn Secrets> = Arc::clone(&secrets) as Arc<dyn Secrets>;
        let endpoint = Endpoint::new(link::Role::Server, options.node, keys, link_options)?;
        let shared = Shared {
            secrets,
            dialled: Mutex::default(),
            endpoint: Mutex::new(Some(Arc::clone(&endpoint))),
            links: sender,
            runtime: tokio::runtime::Handle::current(),
        };
        let ancestors = database.ancestors()?;
        Ok(Agents { shared: Arc::new(shared), endpoint, links, directory: Directory::default(), ancestors })
    }

    /// Who is connected.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// The list of who may connect, to be changed while the server runs.
    pub fn allow_list(&self) -> AllowList {
        AllowList(Arc::clone(&self.endpoint))
    }

    /// What the core tells about agents that are added and removed.
    pub fn roster(&self) -> Box<dyn Roster> {
        Box::new(Listener(Arc::clone(&self.shared)))
    }

    /// Dials, listens, and serves every connection, until dropped.
    pub async fn run(mut self, handle: Handle, database: Arc<dyn Database>, listener: Option<TcpListener>) {
        let listening = listener.map(|listener| {
            let links = self.shared.links.clone();
            tokio::spawn(link::listen(Arc::clone(&self.endpoint), listener, links))
        });
        let (keys, core) = (Arc::clone(&self.shared.secrets), handle.clone());
        let telling = tokio::spawn(async move { keys.tell_failures(&core).await });
        let _stop = StopOnDrop {
            tasks: listening.into_iter().chain([telling]).collect(),
            shared: Arc::clone(&self.shared),
        };
        match handle.agents().await {
            Ok(agents) => {
                for agent in agents {
                    if let Some(dial) = &agent.record.dial {
                        self.shared.dial(&agent.record.name, dial);
                    }
                }
            }
            Err(e) => tracing::error!("the agents are not dialled: {e}"),
        }
        let incarnation = incarnation();
        let context = Context {
            handle,
            database,
            directory: self.directory.clone(),
            incarnation,
            ancestors: self.ancestors.into(),
            next_session: Arc::new(AtomicU64::new(1)),
            led: Arc::default(),
        };
        while let Some(link) = self.links.recv().await {
            tokio::spawn(session(context.clone(), link));
        }
    }
}

/// Who may connect.
#[derive(Clone)]
pub struct AllowList(Arc<Endpoint>);

impl AllowList {
    /// Only these addresses may connect from now on; all if empty. Links in use stay.
    pub fn set(&self, allow: Vec<link::IpRange>) {
        self.0.set_allow(allow);
    }
}

/// 16 random bytes of this start: an agent tells two servers of one epoch apart by them.
fn incarnation() -> [u8; 16] {
    let mut bytes = [0; 16];
    if let Err(e) = getrandom::fill(&mut bytes) {
        tracing::error!("no random bytes for this start's identity: {e}");
        bytes = u128::from(os::clock::boottime_ms()).to_be_bytes();
    }
    bytes
}

fn load_secrets(database: &dyn Database, keys: &Keys) -> Result<(), DbError> {
    let mut known = lock(&keys.known);
    for AgentSecrets { agent, secrets } in database.secrets()? {
        let usable = secrets.into_iter().filter_map(|secret| usable(&agent, secret)).collect();
        known.insert(agent, usable);
    }
    Ok(())
}

fn usable(agent: &str, secret: Vec<u8>) -> Option<Secret> {
    Secret::from_bytes(secret)
        .map_err(|e| tracing::error!(agent, "a secret in the database is not usable: {e}"))
        .ok()
}

impl Shared {
    /// Dials the agent for ever from now on, if that is not done already.
    fn dial(&self, agent: &str, dial: &Dial) {
        let Some(endpoint) = lock(&self.endpoint).clone() else { return };
        let host = if dial.host.contains(':') { format!("[{}]", dial.host) } else { dial.host.clone() };
        let address = format!("{host}:{}", dial.port);
        let mut dialled = lock(&self.dialled);
        if !dialled.contains_key(agent) {
            let dialling = link::keep_dialled(endpoint, address, Some(agent.to_owned()), self.links.clone());
            dialled.insert(agent.to_owned(), self.runtime.spawn(dialling));
        }
    }
}

/// The core's view of the roster.
struct Listener(Arc<Shared>);

impl Roster for Listener {
    fn on_added(&self, agent: &AgentRecord, secret: &[u8]) {
        let secrets = usable(&agent.name, secret.to_vec()).into_iter().collect();
        lock(&self.0.secrets.known).insert(agent.name.clone(), secrets);
        if let Some(dial) = &agent.dial {
            self.0.dial(&agent.name, dial);
        }
    }

    fn on_secret(&self, agent: &str, secret: &[u8]) {
        let Some(secret) = usable(agent, secret.to_vec()) else { return };
        let mut keys = lock(&self.0.secrets.known);
        let secrets = keys.entry(agent.to_owned()).or_default();
        secrets.retain(|known| !known.is_same(&secret)); // set again: the one before it stays valid
        secrets.insert(0, secret);
        secrets.truncate(SECRETS_MAX);
    }

    fn on_retired(&self, agent: &str) {
        if let Some(secrets) = lock(&self.0.secrets.known).get_mut(agent) {
            secrets.truncate(1);
        }
    }

    fn on_removed(&self, agent: &str) {
        lock(&self.0.secrets.known).remove(agent);
        lock(&self.0.secrets.failures).remove(agent);
        if let Some(task) = lock(&self.0.dialled).remove(agent) {
            task.abort();
        }
    }
}

/// Nothing is dialled or accepted any more once the owner is gone.
struct StopOnDrop {
    tasks: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        lock(&self.shared.endpoint).take();
        for task in &self.tasks {
            task.abort();
        }
        for (_, task) in lock(&self.shared.dialled).drain() {
            task.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
