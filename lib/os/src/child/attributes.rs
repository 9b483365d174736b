//! What a child gives itself after its gate opened and before it becomes the program: mask, niceness, limits, user.
//!
//! Limits and niceness come first, since raising them needs the privileges that the user does not have. After a switch to a user other than root no
//! capability is left, and that is checked.
//!
//! A limit of the size of files would also hold for the farewell of a child that cannot execute its program and whose parent died meanwhile: with such a
//! limit that word is written through memory that was mapped before.

use super::body;
use super::stage::{self, Stage};
use crate::capability;

/// What a process is given beside its program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// File mode mask; inherited if absent.
    pub umask: Option<u32>,
    /// Niceness, -20 to 19; inherited if absent.
    pub nice: Option<i32>,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// The user to become; the parent's own if absent.
    pub user: Option<Credentials>,
}

/// A user as the kernel knows one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

/// One resource limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its place in the table.
    index: u8,
    soft: u64,
    hard: u64,
}

impl Limit {
    /// The limit of that name (that of `RLIMIT_…` in small letters); `None` as a value is unlimited, as the result: no such limit.
    pub fn new(name: &str, soft: Option<u64>, hard: Option<u64>) -> Option<Limit> {
        let index = LIMITS.iter().position(|(known, ..)| *known == name)?;
        let number = |value: Option<u64>| value.unwrap_or(libc::RLIM_INFINITY);
        Some(Limit { index: u8::try_from(index).ok()?, soft: number(soft), hard: number(hard) })
    }
}

/// Every limit of Linux: its name, its number, and the words for people.
const LIMITS: [(&str, libc::__rlimit_resource_t, &str); 16] = [
    ("as", libc::RLIMIT_AS, "set the limit \"as\""),
    ("core", libc::RLIMIT_CORE, "set the limit \"core\""),
    ("cpu", libc::RLIMIT_CPU, "set the limit \"cpu\""),
    ("data", libc::RLIMIT_DATA, "set the limit \"data\""),
    ("fsize", libc::RLIMIT_FSIZE, "set the limit \"fsize\""),
    ("locks", libc::RLIMIT_LOCKS, "set the limit \"locks\""),
    ("memlock", libc::RLIMIT_MEMLOCK, "set the limit \"memlock\""),
    ("msgqueue", libc::RLIMIT_MSGQUEUE, "set the limit \"msgqueue\""),
    ("nice", libc::RLIMIT_NICE, "set the limit \"nice\""),
    ("nofile", libc::RLIMIT_NOFILE, "set the limit \"nofile\""),
    ("nproc", libc::RLIMIT_NPROC, "set the limit \"nproc\""),
    ("rss", libc::RLIMIT_RSS, "set the limit \"rss\""),
    ("rtprio", libc::RLIMIT_RTPRIO, "set the limit \"rtprio\""),
    ("rttime", libc::RLIMIT_RTTIME, "set the limit \"rttime\""),
    ("sigpending", libc::RLIMIT_SIGPENDING, "set the limit \"sigpending\""),
    ("stack", libc::RLIMIT_STACK, "set the limit \"stack\""),
];

/// Whether the size of the files that it writes is to be limited.
pub(super) fn limit_file_size(attributes: &Attributes) -> bool {
    let is_of_size = |limit: &Limit| {
        LIMITS.get(usize::from(limit.index)).is_some_and(|(_, resource, _)| *resource == libc::RLIMIT_FSIZE)
    };
    attributes.limits.iter().any(is_of_size)
}

/// The words for the failure of a limit.
pub(super) fn limit_stage_name(index: u8) -> Option<&'static str> {
    LIMITS.get(usize::from(index)).map(|(.., words)| *words)
}

/// Applies them to this process, in the fork of a process with one thread; on an error errno says why.
///
/// # Safety
/// Allocates nothing, takes no lock. The system calls are made directly: the C library's own would look for the threads of the parent.
pub(super) unsafe fn apply(attributes: &Attributes) -> Result<(), Stage> {
    // SAFETY: pointers to values of this frame or of the arguments; no other memory is touched.
    unsafe {
        if attributes.user.is_some() && capability::raise_all() == -1 {
            return Err(stage::CAPABILITIES);
        }
        // Inherited protection from the out-of-memory killer is not for jobs; best effort.
        body::write_file(c"/proc/self/oom_score_adj", b"0");
        if let Some(umask) = attributes.umask {
            libc::umask(umask as libc::mode_t);
        }
        if let Some(nice) = attributes.nice
            && libc::syscall(
                libc::SYS_setpriority,
                libc::PRIO_PROCESS as libc::c_long,
                0 as libc::c_long,
                nice as libc::c_long,
            ) == -1
        {
            return Err(stage::NICE);
        }
        for limit in &attributes.limits {
            let Some((_, resource, _)) = LIMITS.get(usize::from(limit.index)) else { continue };
            let value = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
            if libc::setrlimit(*resource, &raw const value) == -1 {
                return Err(stage::LIMITS + limit.index);
            }
        }
        attributes.user.as_ref().map_or(Ok(()), |user| become_user(user))
    }
}

/// # Safety
/// As [`apply`].
pub(crate) unsafe fn become_user(user: &Credentials) -> Result<(), Stage> {
    let done = |result: libc::c_long, stage| if result == -1 { Err(stage) } else { Ok(()) };
    let (uid, gid) = (libc::c_long::from(user.uid), libc::c_long::from(user.gid));
    // SAFETY: the list of groups is as long as is said.
    unsafe {
        done(libc::syscall(libc::SYS_setgroups, user.groups.len(), user.groups.as_ptr()), stage::GROUPS)?;
        done(libc::syscall(libc::SYS_setresgid, gid, gid, gid), stage::GROUPS)?;
        done(libc::syscall(libc::SYS_setresuid, uid, uid, uid), stage::USER)?;
        if user.uid == 0 {
            return Ok(());
        }
        done(libc::c_long::from(capability::drop_all()), stage::CAPABILITIES)?;
        if !capability::has_none()
            || libc::syscall(libc::SYS_setresuid, 0 as libc::c_long, 0 as libc::c_long, 0 as libc::c_long)
                != -1
        {
            *libc::__errno_location() = libc::EPERM;
            return Err(stage::CAPABILITIES);
        }
    }
    Ok(())
}
