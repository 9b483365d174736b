//! Control groups, version 2, by their files (kernel documentation, admin-guide/cgroup-v2): a group a run, so that its
//! processes can be frozen, killed and counted as one. Works on a mixed v1/v2 machine whose v2 tree has no controllers: freeze, kill
//! and `cpu.stat` are of the core.

use crate::disk;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where the v2 tree is mounted (`/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` beside v1); `None` where it is not.
pub fn mount_point() -> Option<PathBuf> {
    v2_of(&fs::read_to_string("/proc/self/mounts").ok()?)
}

fn v2_of(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// What the kernel counted of a group. `cpu.stat` is of the core; the rest is there where its controller is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// CPU time, milliseconds.
    pub cpu_ms: Option<u64>,
    /// Of that, in user mode.
    pub user_ms: Option<u64>,
    /// Of that, in the kernel.
    pub system_ms: Option<u64>,
    /// The most memory at one time, KiB.
    pub memory_peak_kib: Option<u64>,
    /// Read from all devices.
    pub read_bytes: Option<u64>,
    /// Written to all devices.
    pub written_bytes: Option<u64>,
    /// Processes killed for want of memory.
    pub oom_kills: Option<u64>,
    /// The most processes at one time.
    pub processes_peak: Option<u64>,
}

/// The number behind a key at the beginning of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// The sum over all lines of the numbers that stand behind a word's beginning; `None` if there is none.
fn sum(text: &str, key: &str) -> Option<u64> {
    let found = text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    found.reduce(u64::saturating_add)
}

/// Which controllers count for the groups below one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Controllers {
    io: bool,
    memory: bool,
    pids: bool,
}

impl Controllers {
    /// All may: where that is not known.
    const ALL: Controllers = Controllers { io: true, memory: true, pids: true };

    /// What the parent of the groups says. Asked once in the life of a process, since all its groups have one parent.
    fn below(parent: &Path) -> Controllers {
        static KNOWN: OnceLock<Controllers> = OnceLock::new();
        *KNOWN.get_or_init(|| match fs::read_to_string(parent.join("cgroup.subtree_control")) {
            Ok(text) => {
                let has = |name: &str| text.split_whitespace().any(|word| word == name);
                Controllers { io: has("io"), memory: has("memory"), pids: has("pids") }
            }
            Err(_) => Controllers::ALL,
        })
    }
}

/// Finds out once which controllers count for the groups below `parent`: copies of this process know it too.
pub fn warm_up(parent: &Path) {
    let _ = Controllers::below(parent);
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

    /// What all that ever ran in it used, as far as the kernel counts it here.
    pub fn stat(&self) -> Stat {
        let counted = self.path.parent().map_or(Controllers::ALL, Controllers::below);
        let read = |name: &str| fs::read_to_string(self.path.join(name)).unwrap_or_default();
        let text = |name: &str, there: bool| if there { read(name) } else { String::new() };
        let number = |name: &str, there: bool| text(name, there).trim().parse::<u64>().ok();
        let (cpu, io) = (read("cpu.stat"), text("io.stat", counted.io));
        let ms = |key| field(&cpu, key).map(|us| us / 1000);
        Stat {
            cpu_ms: ms("usage_usec"),
            user_ms: ms("user_usec"),
            system_ms: ms("system_usec"),
            memory_peak_kib: number("memory.peak", counted.memory).map(|bytes| bytes / 1024),
            read_bytes: sum(&io, "rbytes="),
            written_bytes: sum(&io, "wbytes="),
            oom_kills: field(&text("memory.events", counted.memory), "oom_kill"),
            processes_peak: number("pids.peak", counted.pids),
        }
    }

    /// Removes it; an error while a process (or a zombie's group below) is in it.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_version_2_is_found_alone_beside_version_1_and_not_where_there_is_none() {
        let of = |mounts| v2_of(mounts).map(|path| path.display().to_string());
        let alone = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        assert_eq!(of(alone).as_deref(), Some("/sys/fs/cgroup"));
        let mixed = "tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(of(mixed).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(of("cgroup /sys/fs/cgroup/cgroup2 cgroup rw,memory 0 0\n"), None);
    }

    #[test]
    fn what_the_kernel_counts_is_read_and_what_it_does_not_count_is_left_out() {
        let path = std::env::temp_dir().join(format!("lastword-cgroup-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let group = Cgroup { path: path.clone() };
        fs::write(path.join("cpu.stat"), "usage_usec 5000999\nuser_usec 3000000\nsystem_usec 2000999\n")
            .unwrap();
        let stat = group.stat();
        assert_eq!((stat.cpu_ms, stat.user_ms, stat.system_ms), (Some(5_000), Some(3_000), Some(2_000)));
        assert_eq!((stat.memory_peak_kib, stat.read_bytes, stat.oom_kills), (None, None, None));
        fs::write(path.join("memory.peak"), "1048576\n").unwrap();
        fs::write(path.join("memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
        fs::write(path.join("io.stat"), "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=1\n").unwrap();
        fs::write(path.join("pids.peak"), "7\n").unwrap();
        let stat = group.stat();
        assert_eq!(
            (stat.memory_peak_kib, stat.oom_kills, stat.processes_peak),
            (Some(1_024), Some(2), Some(7))
        );
        assert_eq!((stat.read_bytes, stat.written_bytes), (Some(15), Some(21)));
        fs::remove_dir_all(&path).unwrap();
    }
}
