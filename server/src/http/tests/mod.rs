//! The interface on a real core, a real database and real connections, with an agent that does as it is told.

mod agent;
mod files;
mod live;
mod operate;
mod record;
mod rest;

use super::{AppState, Limits, serve};
use crate::agents::{Agents, Options};
use crate::auth::ensure_admin_token;
use crate::bundle::Place;
use crate::core;
use crate::db::{Database, Sqlite};
use crate::files::{self as store, Files};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use ureq::http::Request;

/// Nothing in a test takes longer, or it has failed.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server with everything but its process.
struct Server {
    runtime: Runtime,
    root: TempDir,
    http: SocketAddr,
    agents: SocketAddr,
    token: String,
    client: ureq::Agent,
    stop: Option<oneshot::Sender<()>>,
    handle: core::Handle,
    database: Arc<dyn Database>,
}

/// Where files are stored, and how long.
type StoreOf<'a> = &'a dyn Fn(&Path) -> Option<(store::Store, store::Rules)>;

/// What was answered.
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e} in {text}", self.status))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The kind of problem, or what else it is.
    fn kind(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        let json = self.json();
        assert_eq!(json["status"], self.status);
        assert!(json["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{json}");
        json["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }
}

impl Server {
    fn start() -> Server {
        Server::start_within(Limits::of_open_files(1_024))
    }

    fn start_within(limits: Limits) -> Server {
        Server::start_with(limits, &|_| None)
    }

    fn start_with(limits: Limits, store: StoreOf<'_>) -> Server {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Server::start_on(runtime, limits, store)
    }

    fn start_on(runtime: Runtime, limits: Limits, store: StoreOf<'_>) -> Server {
        let root = tempfile::tempdir().unwrap();
        let (http, agents, stop, handle, database) =
            runtime.block_on(begin(root.path(), limits, store(root.path())));
        let token = std::fs::read_to_string(root.path().join("admin.token")).unwrap().trim().to_owned();
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE));
        let client = config.build().new_agent();
        Server { runtime, root, http, agents, token, client, stop: Some(stop), handle, database }
    }

    fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Vec::new())
    }

    fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, body.to_string().into_bytes())
    }

    fn call(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        self.send(Request::builder().method(method).uri(self.url(path)).header("authorization", bearer), body)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    fn send(&self, request: ureq::http::request::Builder, body: Vec<u8>) -> Answer {
        let request = self.client.run(request.body(body).unwrap()).unwrap();
        let (head, body) = request.into_parts();
        let body = body.into_with_config().limit(1 << 30).read_to_vec().unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// Asks until the answer is as wanted.
    fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.get(path).json();
            if wanted(&answer) {
                return answer;
            }
            assert!(began.elapsed() < DEADLINE, "{path} stays {answer}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn submit(&self) -> u64 {
        let answer = self.post("/api/v1/jobs", serde_json::json!({"command": ["/bin/true"]}));
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["id"].as_u64().unwrap()
    }
}

/// With a setting of every kind that must not be told.
fn place(root: &Path) -> Place {
    let config = serde_json::json!({"node": {"name": "a"}, "database": {"url": "postgres://anna:hush-in-url@db.example/lw"},
        "smtp": {"password": "hush-password", "key_file": "/etc/hush-path"}});
    Place { data_root: root.to_owned(), folders: vec![root.join("backups")], config }
}

async fn begin(
    root: &Path,
    limits: Limits,
    store: Option<(store::Store, store::Rules)>,
) -> (SocketAddr, SocketAddr, oneshot::Sender<()>, core::Handle, Arc<dyn Database>) {
    let database: Arc<dyn Database> = Arc::new(Sqlite::open(&root.join("server.db")).unwrap());
    ensure_admin_token(&*database, root, os::clock::wall_ms()).unwrap();
    let options = Options { node: "a".to_owned(), allow: Vec::new() };
    let agents = Agents::new(&*database, options).unwrap();
    let (handle, _core) = core::spawn(Arc::clone(&database), agents.roster(), [7; 32]).unwrap();
    let context = store.map(|(store, rules)| {
        let (handle, database, store) = (handle.clone(), Arc::clone(&database), Arc::new(store));
        let context = store::Context { handle, database, agents: agents.directory(), store };
        store::spawn(context.clone(), rules);
        context
    });
    let state = AppState {
        name: "a".to_owned(),
        handle: handle.clone(),
        db: Arc::clone(&database),
        agents: agents.directory(),
        backups: Arc::new(crate::backup::Backups::new("a", &root.join("backups"))),
        operations: crate::operation::Operations::new(database.identity().epoch),
        files: Files::new(context),
        tokens: handle.tokens(),
        place: Arc::new(place(root)),
    };
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = (http.local_addr().unwrap(), listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(agents.run(handle.clone(), Arc::clone(&database), Some(listener)));
    tokio::spawn(serve(state, http, limits, async move {
        let _ = stopped.await;
    }));
    (addresses.0, addresses.1, stop, handle, database)
}
