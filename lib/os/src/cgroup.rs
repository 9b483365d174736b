//! Control groups, version 2, by their files (kernel documentation, admin-guide/cgroup-v2): a group a run, so that its
//! processes can be frozen, killed and counted as one. Works on a mixed v1/v2 machine whose v2 tree has no controllers: freeze, kill
//! and `cpu.stat` are of the core.

use crate::disk;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Where the v2 tree is mounted (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside v1); `None` where it is not.
pub fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// One run's group.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes `parent/name`, or takes it if it is there.
    pub fn create(parent: &Path, name: &str) -> io::Result<Cgroup> {
        let path = parent.join(name);
        match fs::create_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(Cgroup { path }),
        }
    }

    /// A group that exists already.
    pub fn at(path: &Path) -> Option<Cgroup> {
        path.join("cgroup.procs").exists().then(|| Cgroup { path: path.to_owned() })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its descriptor, for `CLONE_INTO_CGROUP`.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        disk::open_dir(&self.path)
    }

    /// Whether a live process is in it or below.
    pub fn is_populated(&self) -> io::Result<bool> {
        Ok(fs::read_to_string(self.path.join("cgroup.events"))?.lines().any(|line| line == "populated 1"))
    }

    /// Sends SIGKILL to all processes in it and below at once (Linux ≥ 5.14); frozen ones die too.
    pub fn kill(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Stops or continues all processes in it.
    pub fn freeze(&self, frozen: bool) -> io::Result<()> {
        fs::write(self.path.join("cgroup.freeze"), if frozen { "1" } else { "0" })
    }

    /// The processes in it (not below).
    pub fn processes(&self) -> io::Result<Vec<u32>> {
        let text = fs::read_to_string(self.path.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// CPU time of all that ever ran in it, milliseconds.
    pub fn cpu_ms(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.path.join("cpu.stat"))?;
        let usec = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse::<u64>().ok());
        usec.map(|us| us / 1000).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Removes it; an error while a process (or a zombie's group below) is in it.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}
