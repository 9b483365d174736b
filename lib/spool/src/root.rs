//! Names in the data root, and what it takes to use it.

use job::RunId;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A data root that exists and is ours to use.
#[derive(Clone, Debug)]
pub struct DataRoot {
    path: PathBuf,
}

/// Why a data root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The system said no.
    #[error("data root {path}: cannot {what}: {source}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A network file system keeps neither locks nor syncs as this program needs them.
    #[error(
        "data root {path} is on {kind}, where locks and syncs cannot be relied on: choose a local directory or a SAN volume (or set allow_network_file_system = true and accept lost statuses)"
    )]
    Network {
        /// The data root.
        path: PathBuf,
        /// Which file system.
        kind: &'static str,
    },
    /// Another agent uses it.
    #[error(
        "data root {path} is in use by {program} with process id {pid}: stop it, or choose another data_root"
    )]
    InUse {
        /// The data root.
        path: PathBuf,
        /// Which program.
        program: &'static str,
        /// Its process.
        pid: u32,
    },
}

/// Where a run's directory stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// Not all of it is acknowledged.
    Live,
    /// Everything is acknowledged; kept for its output and for servers that went back in time.
    Settled,
    /// Cannot be read.
    Quarantined,
}

impl Shelf {
    /// The directory's name, which is also the word for people.
    pub fn name(self) -> &'static str {
        match self {
            Shelf::Live => "runs",
            Shelf::Settled => "settled",
            Shelf::Quarantined => "quarantine",
        }
    }
}

/// A program that was killed may hold its lock for a moment longer than it takes to start the next one.
const LOCK_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// Others may pass through it, and see nothing of what is in it.
const PASSABLE_MODE: u32 = 0o711;

/// The prefix of a run directory that is being prepared.
pub(crate) const NEW_PREFIX: &str = ".new-";

impl DataRoot {
    /// Makes the directories (0700) where they are missing. With `passable`, the way to the runs is 0711: jobs of other users reach their own
    /// directories by name, and can list nothing.
    pub fn create(path: &Path, allow_network: bool, passable: bool) -> Result<DataRoot, RootError> {
        let root = DataRoot { path: path.to_owned() };
        for dir in [
            path.to_owned(),
            root.shelf(Shelf::Live),
            root.shelf(Shelf::Settled),
            root.shelf(Shelf::Quarantined),
            root.trace_dir(),
        ] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(io_error("create it", &dir))?;
        }
        let path = fs::canonicalize(path).map_err(io_error("resolve it", path))?;
        for dir in [path.clone(), path.join(Shelf::Live.name())] {
            let mode = if passable { PASSABLE_MODE } else { 0o700 };
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode))
                .map_err(io_error("set its mode", &dir))?;
        }
        let network =
            os::disk::file_system(&path).map_err(io_error("ask for its file system", &path))?.network;
        DataRoot { path }.if_local(network, allow_network)
    }

    /// Gives it back if it is not on a network file system, or may be.
    fn if_local(self, network: Option<&'static str>, allow_network: bool) -> Result<DataRoot, RootError> {
        match network.filter(|_| !allow_network) {
            Some(kind) => Err(RootError::Network { path: self.path, kind }),
            None => Ok(self),
        }
    }

    /// A data root that another process of the agent has made.
    pub fn at(path: &Path) -> DataRoot {
        DataRoot { path: path.to_owned() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a shelf.
    pub fn shelf(&self, shelf: Shelf) -> PathBuf {
        self.path.join(shelf.name())
    }

    /// The directory of trace files.
    pub fn trace_dir(&self) -> PathBuf {
        self.path.join("trace")
    }

    /// Where job-processors, which do not trace, write what goes wrong with them.
    pub fn job_processors_trace_path(&self) -> PathBuf {
        self.trace_dir().join("job-processor.log")
    }

    /// Opens that, for many writers.
    pub fn job_processors_trace(&self) -> io::Result<File> {
        File::options().append(true).create(true).mode(0o600).open(self.job_processors_trace_path())
    }

    /// A run's directory on a shelf; it need not exist.
    pub fn run(&self, shelf: Shelf, run_id: RunId) -> RunDir {
        RunDir { path: self.shelf(shelf).join(run_id.to_string()), run_id }
    }

    /// Where a run is, if anywhere.
    pub fn find(&self, run_id: RunId) -> io::Result<Option<(Shelf, RunDir)>> {
        for shelf in [Shelf::Live, Shelf::Settled, Shelf::Quarantined] {
            let dir = self.run(shelf, run_id);
            if os::disk::exists(dir.path())? {
                return Ok(Some((shelf, dir)));
            }
        }
        Ok(None)
    }

    /// The runs on a shelf, oldest first; entries that are no runs are left out.
    pub fn list(&self, shelf: Shelf) -> io::Result<Vec<RunId>> {
        let names = fs::read_dir(self.shelf(shelf))?.flatten();
        let mut found: Vec<RunId> =
            names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Removes what a crash left of runs that were being prepared. Only for the holder of the network-processor's lock, before it prepares any.
    pub fn sweep_unprepared(&self) -> io::Result<usize> {
        let mut swept = 0;
        for entry in fs::read_dir(self.shelf(Shelf::Live))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(NEW_PREFIX) {
                os::disk::remove_tree(&entry.path())?;
                os::crash::point("recover.amid-sweep");
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Moves a run from one shelf to another. Not synced: after a power loss it is moved again.
    pub fn move_to(&self, run_id: RunId, from: Shelf, to: Shelf) -> io::Result<()> {
        fs::rename(self.run(from, run_id).path(), self.run(to, run_id).path())
    }

    /// Takes the lock of one of the agent's programs; the file must be kept open while the program runs.
    pub fn lock(&self, program: &'static str) -> Result<File, RootError> {
        let path = self.lock_path(program);
        // Nobody else may open it: a reader's lock would keep us from ours.
        let open =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(io_error("open it", &path))?;
        if os::lock::lock_patiently(&file, LOCK_PATIENCE).map_err(io_error("lock it", &path))? {
            return Ok(file);
        }
        let pid = os::lock::holder(&file).map_err(io_error("ask who locked it", &path))?.unwrap_or(0);
        Err(RootError::InUse { path: self.path.clone(), program, pid })
    }

    fn lock_path(&self, program: &str) -> PathBuf {
        self.path.join(if program == "platform-agent" {
            "agent.lock".into()
        } else {
            format!("{program}.lock")
        })
    }

    /// The process that holds the lock of a program, if one does. Never call it in the process that holds it.
    pub fn lock_holder(&self, program: &str) -> io::Result<Option<u32>> {
        match File::open(self.lock_path(program)) {
            Ok(file) => os::lock::holder(&file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootError {
    let path = path.to_owned();
    move |source| RootError::Io { path, what, source }
}

/// One run's directory.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    run_id: RunId,
}

impl RunDir {
    /// The directory of a run by its path, whose last part is the run's id.
    pub fn at(path: &Path) -> Option<RunDir> {
        let run_id = path.file_name()?.to_str()?.parse().ok()?;
        Some(RunDir { path: path.to_owned(), run_id })
    }

    /// The data root that it is in.
    pub fn root(&self) -> Option<DataRoot> {
        Some(DataRoot::at(self.path.parent()?.parent()?))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn run_id(&self) -> RunId {
        self.run_id
    }

    /// Lets its job's user pass through it, to what is given to him.
    pub fn make_passable(&self) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(PASSABLE_MODE))
    }

    /// The message log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The job's own directory.
    pub fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Standard output.
    pub fn out(&self) -> PathBuf {
        self.path.join("out")
    }

    /// Standard error.
    pub fn err(&self) -> PathBuf {
        self.path.join("err")
    }

    /// The script, if the job is one.
    pub fn script(&self) -> PathBuf {
        self.path.join("script")
    }

    /// Opens the log to ask who holds its lock and to read it. Closing it drops a lock of this process on it.
    pub fn open_log(&self) -> io::Result<File> {
        File::open(self.log())
    }

    /// The process that holds the log's lock. Never call it in a process that may hold it.
    pub fn lock_holder(&self) -> io::Result<Option<u32>> {
        os::lock::holder(self.open_log()?)
    }
}

/// The name of a run's control socket in its directory.
pub const CONTROL_SOCKET: &str = "ctl.sock";
/// The monitor's socket in the data root.
pub const MONITOR_SOCKET: &str = "monitor.sock";
/// The network-processor's socket for hints in the data root.
pub const WAKE_SOCKET: &str = "wake.sock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_root_on_a_network_file_system_is_refused_unless_somebody_wants_it_so() {
        let root = || DataRoot::at(Path::new("/mnt/agent"));
        for kind in ["NFS", "SMB"] {
            let text = root().if_local(Some(kind), false).unwrap_err().to_string();
            assert!(text.contains(&format!("/mnt/agent is on {kind}")), "{text}");
            assert!(text.contains("allow_network_file_system = true"), "{text}");
            assert!(root().if_local(Some(kind), true).is_ok());
        }
        assert!(root().if_local(None, false).is_ok());
    }
}
