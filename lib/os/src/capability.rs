//! Capabilities of this process (capabilities(7)), by direct system calls.

const VERSION_3: u32 = 0x2008_0522;
/// Those that are used here, all of the lower half (linux/capability.h).
const CHOWN: u32 = 1 << 0;
const DAC_OVERRIDE: u32 = 1 << 1;
const KILL: u32 = 1 << 5;
const SETGID: u32 = 1 << 6;
const SETUID: u32 = 1 << 7;
const SYS_NICE: u32 = 1 << 23;
const SYS_RESOURCE: u32 = 1 << 24;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// The lower and the upper 32 bits of a set are in two of these.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn get() -> Option<[Half; 2]> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: header and data are laid out as capget(2) says, and live in this frame.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) };
    (got == 0).then_some(halves)
}

/// 0, or -1 with errno.
fn set(halves: [Half; 2]) -> i32 {
    let header = Header { version: VERSION_3, pid: 0 };
    // SAFETY: header and data are laid out as capset(2) says, and live in this frame.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    if done == 0 { 0 } else { -1 }
}

/// Makes all permitted capabilities effective. 0, or -1 with errno.
pub(crate) fn raise_all() -> i32 {
    let Some(halves) = get() else { return -1 };
    let raised = halves.map(|half| Half { effective: half.permitted, ..half });
    if raised == halves { 0 } else { set(raised) }
}

/// Whether what a switch of users needs is in effect.
pub(crate) fn can_switch() -> bool {
    const NEEDED: u32 = CHOWN | SETGID | SETUID;
    get().is_some_and(|[low, _]| low.effective & NEEDED == NEEDED)
}

/// Keeps what starting and ending other users' jobs needs, as far as it is permitted, with only the one to signal in effect.
pub(crate) fn keep_for_switching() -> std::io::Result<()> {
    const KEPT: u32 = CHOWN | DAC_OVERRIDE | KILL | SETGID | SETUID | SYS_NICE | SYS_RESOURCE;
    let error = std::io::Error::last_os_error;
    let [low, _] = get().ok_or_else(error)?;
    let permitted = low.permitted & KEPT;
    let low = Half { effective: permitted & KILL, permitted, inheritable: 0 };
    if set([low, Half::default()]) == 0 { Ok(()) } else { Err(error()) }
}

/// Gives up every capability for ever (also the ambient ones: they go with the permitted). 0, or -1 with errno.
pub(crate) fn drop_all() -> i32 {
    set([Half::default(); 2])
}

/// Whether there is none, in any set.
pub(crate) fn has_none() -> bool {
    get() == Some([Half::default(); 2])
}

/// Does `work` with the capability to change owners in effect, if it is permitted; as before afterwards.
pub(crate) fn with_chown<T>(work: impl FnOnce() -> T) -> T {
    let before = get();
    let lacks_it = |halves: &[Half; 2]| halves[0].effective & CHOWN == 0 && halves[0].permitted & CHOWN != 0;
    let Some(halves) = before.filter(lacks_it) else { return work() };
    let [low, high] = halves;
    set([Half { effective: low.effective | CHOWN, ..low }, high]);
    let done = work();
    set(halves);
    done
}
