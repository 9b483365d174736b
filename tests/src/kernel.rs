//! What this host can do.

/// Whether the kernel tells the exit code of a reaped process to who holds its pidfd (Linux 6.15 and later).
pub fn keeps_exit_information() -> bool {
    let release = os::process::uname().release;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}

/// Whether this is the superuser, who may mount.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}
