//! What `/proc` says of processes and of this boot (proc(5)).

use std::fs;
use std::io::{self, Read};
use std::sync::OnceLock;

/// The kernel's boot id: 16 bytes, new at every boot. Read once in the life of a process.
pub fn boot_id() -> io::Result<[u8; 16]> {
    static BOOT_ID: OnceLock<[u8; 16]> = OnceLock::new();
    match BOOT_ID.get() {
        Some(known) => Ok(*known),
        None => read_boot_id().map(|read| *BOOT_ID.get_or_init(|| read)),
    }
}

fn read_boot_id() -> io::Result<[u8; 16]> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = match test_boot_id() {
        Some(text) => text,
        None => fs::read_to_string(PATH)?,
    };
    let mut bytes = [0u8; 16];
    let digits: Vec<u8> = text
        .trim()
        .bytes()
        .filter(|b| *b != b'-')
        .filter_map(|b| (b as char).to_digit(16).map(|d| d as u8))
        .collect();
    if digits.len() != 32 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{PATH} has no UUID: {text:?}")));
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Ok(bytes)
}

/// Another boot id, for tests of a host that was restarted: `LASTWORD_TEST_BOOT_ID`, 32 hexadecimal digits. Compiled out of release builds.
#[cfg(debug_assertions)]
fn test_boot_id() -> Option<String> {
    std::env::var("LASTWORD_TEST_BOOT_ID").ok()
}

#[cfg(not(debug_assertions))]
#[inline(always)]
fn test_boot_id() -> Option<String> {
    None
}

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `Z`, `T`, …
    pub state: u8,
    /// Parent.
    pub ppid: u32,
    /// It was forked and has executed no program since (`PF_FORKNOEXEC` of field 9, there and cleared by every Linux since 2.2; also told of a
    /// zombie): what runs in it, and what its exit code means, is still its parent's. `false` where the kernel does not tell.
    pub unexecuted: bool,
    /// Start time in clock ticks since boot (field 22): with the pid and the boot id it names a process for ever.
    pub start_ticks: u64,
    /// Wait status (field 52): of a zombie the true one; 0 where the reader may not see it, so only trust it of a zombie that we may trace.
    pub wait_status: i32,
}

/// More than `/proc/PID/stat` has: 52 numbers of at most 20 digits, and a name. The kernel gives it in one read.
const STAT_BYTES_MAX: usize = 2048;

/// Reads `/proc/PID/stat`; `None` if there is no such process.
pub fn stat(pid: u32) -> io::Result<Option<Stat>> {
    let mut bytes = [0u8; STAT_BYTES_MAX];
    let read = fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut bytes));
    match read {
        Ok(length) => parse_stat(&bytes[..length]).map(Some).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat cannot be read"))
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(e),
    }
}

/// `PF_FORKNOEXEC` of the kernel's `include/linux/sched.h`.
const FORKED_AND_NOT_EXECUTED: u64 = 0x40;

fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    // The command's name may hold anything, also ") Z 1": the last parenthesis ends it.
    let end = bytes.iter().rposition(|b| *b == b')')?;
    let text = std::str::from_utf8(&bytes[end + 1..]).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect(); // fields[0] is field 3
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        ppid: fields.get(1)?.parse().ok()?,
        unexecuted: fields.get(6)?.parse::<u64>().ok()? & FORKED_AND_NOT_EXECUTED != 0,
        start_ticks: fields.get(19)?.parse().ok()?,
        wait_status: fields.get(49).and_then(|f| f.parse().ok()).unwrap_or(0),
    })
}

/// Whether this process's parent traces it (ptrace(2)): it sees every system call, and what it waits for fails when it has gone.
pub fn is_traced_by_parent() -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    let tracer: u32 = tracer.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0);
    let parent = stat(std::process::id())?.map_or(0, |stat| stat.ppid);
    Ok(tracer != 0 && tracer == parent)
}

/// The name of a process (`/proc/PID/comm`: of its program, cut off after 15 bytes, as long as it did not choose another); `None` if it is gone.
pub fn name(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned())
}

/// The direct children of a process, of all its threads. Empty if it is gone.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return found };
    for task in tasks.flatten() {
        if let Ok(text) = fs::read_to_string(task.path().join("children")) {
            found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    found
}

/// Every live process on the host with its [`Stat`]; processes that end meanwhile are left out.
pub fn all() -> io::Result<Vec<(u32, Stat)>> {
    let pids = fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter_map(|pid| Some((pid, stat(pid).ok()??))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let mut line = b"42 (a) Z (b c) S 7".to_vec();
        for field in 5..=52 {
            line.extend_from_slice(format!(" {field}").as_bytes());
        }
        let stat = parse_stat(&line).unwrap();
        assert_eq!((stat.state, stat.ppid, stat.start_ticks, stat.wait_status), (b'S', 7, 22, 52));
        assert!(!stat.unexecuted, "its field is 9");
        assert_eq!(parse_stat(b"42 (x"), None);
    }

    #[test]
    fn this_process_has_a_start_time_and_a_boot() {
        assert!(stat(std::process::id()).unwrap().unwrap().start_ticks > 0);
        assert_ne!(boot_id().unwrap(), [0; 16]);
        assert!(!is_traced_by_parent().unwrap());
        assert_eq!(stat(u32::MAX / 2).unwrap(), None);
    }
}
