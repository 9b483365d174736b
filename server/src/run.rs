//! From the arguments to the stop.
//!
//! What a kill -9 can leave in the data root, and what the next start does with it:
//!
//! | on disk                          | recovery                                                     |
//! |----------------------------------|--------------------------------------------------------------|
//! | `server.lock`, held by nobody    | taken                                                        |
//! | `server.db` with `-wal`, `-shm`  | see `db::sqlite`                                             |
//! | `http.addr`, `agents.addr`       | written anew when the sockets are bound                      |
//! | `admin.token`, not in the database | made valid: it was written first                           |
//! | `admin.token.new`, `.*.tmp`      | written over                                                 |
//! | `server.db.restoring`            | refused: a restore is not complete, see `restore`            |
//! | `backups/.*.tmp`                 | removed by the next backup, see `backup`                     |
//! | `files/`                         | see `files`                                                  |

use crate::agents::{self, Agents, AllowList};
use crate::args::{self, Asked, USAGE};
use crate::auth::ensure_admin_token;
use crate::backup::{self, Backups};
use crate::db::{Database, Sqlite};
use crate::operation::Operations;
use crate::settings::Settings;
use crate::{core, disk, files, http, offline, recover, sweep};
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Wrong arguments or configuration (sysexits: EX_USAGE, EX_CONFIG).
const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 64;
const EXIT_CONFIG: u8 = 78;
/// So long agents, requests and the last commit have to come to an end.
const STOP_MAX: Duration = Duration::from_secs(10);
/// The limit of open files to go by if the system does not tell it.
const OPEN_FILES_ASSUMED: u64 = 1_024;

/// Does what the arguments say.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let asked = match args::parse(args.skip(1)) {
        Ok(asked) => asked,
        Err(e) => {
            eprintln!("central-server: {e:#}\n{USAGE}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match asked {
        Asked::Help => say(USAGE),
        Asked::Version => say(concat!("central-server ", env!("CARGO_PKG_VERSION"))),
        Asked::Check(config) => match Settings::load(&config).and_then(|settings| check(&settings)) {
            Ok(()) => say(&format!("{} is in order", config.display())),
            Err(e) => complain(&e, EXIT_CONFIG),
        },
        Asked::Run(config) => match Settings::load(&config) {
            Ok(settings) => start(&config, &settings).map_or_else(
                |e| {
                    tracing::error!("{e:#}");
                    complain(&e, EXIT_FAILURE)
                },
                |()| ExitCode::SUCCESS,
            ),
            Err(e) => complain(&e, EXIT_CONFIG),
        },
        Asked::CheckDatabase { place, progress } => match offline::check_database(place, progress) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(EXIT_FAILURE), // what contradicts what was printed
            Err(e) => complain(&e, EXIT_FAILURE),
        },
        Asked::Restore(order) => match offline::restore(order) {
            Ok(text) => say(&text),
            Err(e) => complain(&e, EXIT_FAILURE),
        },
    }
}

/// What the server would start with, and could not use as things stand.
fn check(settings: &Settings) -> anyhow::Result<()> {
    settings.backups().check().context("[backup] directory")?;
    match settings.store()? {
        Some(place) => files::check(&place).context("[files]"),
        None => Ok(()),
    }
}

fn say(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

fn complain(error: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("central-server: {error:#}");
    ExitCode::from(code)
}

pub(crate) fn create_data_root(root: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .with_context(|| format!("creating the data root {}", root.display()))
}

fn start(path: &Path, settings: &Settings) -> anyhow::Result<()> {
    let root = settings.node.data_root.clone();
    create_data_root(&root)?;
    let _lock = lock_data_root(&root)?;
    let _tracing = trace::init("central-server", Some(&root.join("trace")), true);
    if !settings.cluster.watch_agents.is_empty() {
        tracing::warn!("[cluster] watch_agents has no effect: this server is not part of a cluster");
    }
    let http_limits = http::Limits::of_open_files(open_files());
    let database = Arc::new(Sqlite::open(&settings.database_path()?)?);
    if let Some(epoch_min) = settings.node.epoch_min {
        let epoch = database.raise_epoch(epoch_min.saturating_sub(1)).context("[node] epoch_min")?;
        tracing::info!(epoch, "the epoch is at least [node] epoch_min");
    }
    ensure_admin_token(database.as_ref(), &root, os::clock::wall_ms())?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let served = runtime.block_on(serve(path, settings, http_limits, Arc::clone(&database)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(e) = database.fold_log() {
        tracing::warn!("the write-ahead log stays beside the database file (copy both): {e}");
    }
    served
}

/// How many files this process may have open, after it asked for as many as it can get: every agent and every request is one.
fn open_files() -> u64 {
    match os::process::raise_open_files() {
        Ok(limit) => {
            tracing::info!(limit, "open files");
            limit
        }
        Err(e) => {
            tracing::warn!("the limit of open files stays as it is, {OPEN_FILES_ASSUMED} is assumed: {e}");
            OPEN_FILES_ASSUMED
        }
    }
}

/// Two servers never run on one data root.
pub(crate) fn lock_data_root(root: &Path) -> anyhow::Result<File> {
    let path = root.join("server.lock");
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    // One that was killed may hold it for a moment longer than it takes to start the next one.
    if !os::lock::lock_patiently(&file, Duration::from_secs(2))
        .with_context(|| format!("locking {}", path.display()))?
    {
        let holder =
            os::lock::holder(&file).ok().flatten().map(|pid| format!(" (process {pid})")).unwrap_or_default();
        bail!("another central-server{holder} runs on the data root {}; stop that one first", root.display());
    }
    Ok(file)
}

async fn serve(
    path: &Path,
    settings: &Settings,
    http_limits: http::Limits,
    database: Arc<Sqlite>,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let root = &settings.node.data_root;
    let database: Arc<dyn Database> = database;
    let http_listener = bind("[http] listen", &settings.http.listen).await?;
    let agents_listener = match settings.agents.listen.as_str() {
        "" => None,
        address => Some(bind("[agents] listen", address).await?),
    };
    let options = agents::Options { node: settings.node.name.clone(), allow: settings.allow()? };
    let agents = Agents::new(database.as_ref(), options)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| anyhow::anyhow!("getting random bytes: {e}"))?;
    let (handle, _core) = core::spawn(Arc::clone(&database), agents.roster(), seed)?;
    let backups = Arc::new(settings.backups());
    let operations = Operations::new(database.identity().epoch);
    let files = store_files(settings, &handle, &database, &agents)?;
    let state = http::AppState {
        name: settings.node.name.clone(),
        handle: handle.clone(),
        db: Arc::clone(&database),
        agents: agents.directory(),
        backups: Arc::clone(&backups),
        operations: operations.clone(),
        files,
        tokens: handle.tokens(),
        place: Arc::new(settings.place()?),
    };
    let (directory, allow) = (agents.directory(), agents.allow_list());
    write_address(&root.join("http.addr"), http_listener.local_addr()?)?;
    if let Some(listener) = &agents_listener {
        write_address(&root.join("agents.addr"), listener.local_addr()?)?;
    }
    let identity = database.identity();
    tracing::info!(
        epoch = identity.epoch,
        commit = database.commit_number(),
        http = %http_listener.local_addr()?,
        "central-server {} serves", env!("CARGO_PKG_VERSION")
    );
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await; // an error is the stop too
    };
    spawn_chores(settings, &handle, &directory, &database, (backups, operations))?;
    let mut http = tokio::spawn(http::serve(state, http_listener, http_limits, shutdown));
    let agents = tokio::spawn(agents.run(handle.clone(), Arc::clone(&database), agents_listener));
    tokio::select! {
        name = signals.stop(|| reload(path, settings, &allow)) => tracing::info!("{name}: stopping"),
        ended = &mut http => bail!("the HTTP server ended by itself: {ended:?}"),
    }
    drop(stopping);
    agents.abort(); // no new connection; the sessions go on
    let end = async {
        handle.stop().await;
        while directory.connected() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = http.await; // requests under way are answered
    };
    if tokio::time::timeout(STOP_MAX, end).await.is_err() {
        tracing::warn!(
            "not everything came to an end within {} s; what was committed is safe",
            STOP_MAX.as_secs()
        );
    }
    tracing::info!("stopped");
    Ok(())
}

/// What the server does beside what it is asked for; it ends with the runtime.
fn spawn_chores(
    settings: &Settings,
    handle: &core::Handle,
    agents: &agents::Directory,
    database: &Arc<dyn Database>,
    (backups, operations): (Arc<Backups>, Operations),
) -> anyhow::Result<()> {
    let watch = disk::Watch {
        folder: settings.database_path()?.parent().unwrap_or(&settings.node.data_root).to_owned(),
        free_bytes_min: settings.disk.free_bytes_min,
        ballast_bytes: settings.disk.ballast_bytes,
    };
    tokio::spawn(watch.run(handle.clone()));
    tokio::spawn(sweep::run(Arc::clone(database), settings.retention.rules()));
    tokio::spawn(settings.retention.jobs().run(handle.clone(), Arc::clone(database)));
    tokio::spawn(recover::run(handle.clone(), agents.clone(), Arc::clone(database)));
    let (every, keep) = (settings.backup.every.std(), settings.backup.keep);
    tokio::spawn(backup::on_schedule(
        backups,
        Arc::clone(database),
        (operations, handle.clone()),
        every,
        keep,
    ));
    Ok(())
}

/// Begins to store what agents have kept, if there is a store.
fn store_files(
    settings: &Settings,
    handle: &core::Handle,
    database: &Arc<dyn Database>,
    agents: &Agents,
) -> anyhow::Result<files::Files> {
    let Some(place) = settings.store()? else { return Ok(files::Files::default()) };
    let store = Arc::new(files::Store::new(place, settings.files.free_bytes_min.as_bytes()));
    let context = files::Context {
        handle: handle.clone(),
        database: Arc::clone(database),
        agents: agents.directory(),
        store,
    };
    files::spawn(context.clone(), settings.file_rules());
    Ok(files::Files::new(Some(context)))
}

async fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{key}: listening on {address}"))
}

fn write_address(path: &Path, address: SocketAddr) -> anyhow::Result<()> {
    os::disk::replace(path, format!("{address}\n").as_bytes(), 0o644)
        .with_context(|| format!("writing {}", path.display()))
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        let catch = |kind| signal(kind).context("catching signals");
        Ok(Signals {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the server; returns its name. Another one asks for `reload`.
    async fn stop(&mut self, reload: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => reload(),
            }
        }
    }
}

/// SIGHUP: takes over what can be changed while the server runs, and says what cannot.
fn reload(path: &Path, running: &Settings, allow: &AllowList) {
    let read = Settings::load(path).and_then(|new| Ok((new.allow()?, new)));
    let (ranges, mut new) = match read {
        Ok(read) => read,
        Err(e) => return tracing::error!("SIGHUP: everything stays as it was: {e:#}"),
    };
    tracing::info!("SIGHUP: [agents] allow is {:?} now; links in use stay", new.agents.allow);
    allow.set(ranges);
    new.agents.allow.clone_from(&running.agents.allow);
    if format!("{new:?}") != format!("{running:?}") {
        tracing::warn!(
            "SIGHUP: other keys changed too; they take effect when the server is restarted, which no running job notices"
        );
    }
}
