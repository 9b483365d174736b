//! A program that has root's rights for somebody who has not, by setuid or through sudo: it takes the caller's ids at once and keeps a few
//! capabilities, of which only the one to signal is in effect.

use crate::capability;
use crate::child::{Credentials, attributes};
use crate::process::check;
use std::ffi::{CStr, CString};
use std::io;

/// Variables that a caller may set: they choose a language and a time zone, and no file.
const KEPT: [&CStr; 3] = [c"LANG", c"LC_ALL", c"TZ"];

/// Whether this program has more rights than its caller (`AT_SECURE`, getauxval(3)).
pub fn is_elevated() -> bool {
    // SAFETY: reads what the kernel gave this process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether this process may switch users and give files away.
pub fn can_switch() -> bool {
    capability::can_switch()
}

/// Takes on the caller's user in all ids, keeps the capabilities that a switch of users needs, and forgets the caller's environment but for language
/// and time zone. A program that is setuid has the caller's real user and his groups; one that is root in every way is told who the caller is.
/// To be called first, in one thread. From here on files are opened with the caller's rights only.
pub fn settle(told: Option<&Credentials>) -> io::Result<()> {
    if let Some(Credentials { gid, groups, .. }) = told {
        // SAFETY: the list of groups is as long as is said.
        unsafe {
            check(libc::setgroups(groups.len(), groups.as_ptr()))?;
            check(libc::setresgid(*gid, *gid, *gid))?;
        }
    }
    let caller = told.map_or(rustix::process::getuid().as_raw(), |told| told.uid);
    // SAFETY: one thread; the strings live until they were copied by setenv.
    unsafe {
        let kept = KEPT.map(|name| (name, value_of(name)));
        check(libc::clearenv())?;
        for (name, value) in kept {
            if let Some(value) = value.filter(|value| !value.as_bytes().contains(&b'/')) {
                check(libc::setenv(name.as_ptr(), value.as_ptr(), 1))?;
            }
        }
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        check(libc::setresuid(caller, caller, caller))?;
    }
    capability::keep_for_switching()
}

/// # Safety
/// In one thread.
unsafe fn value_of(name: &CStr) -> Option<CString> {
    // SAFETY: the value is copied before anybody changes the environment.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_owned())
    }
}

/// Becomes that user for ever, with no capability left. To be called in one thread.
pub fn become_user(user: &Credentials) -> io::Result<()> {
    if capability::raise_all() == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: one thread.
    unsafe { attributes::become_user(user) }.map_err(|_stage| io::Error::last_os_error())
}
