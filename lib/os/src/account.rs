//! Users and groups as the host's databases have them (NSS: files, LDAP, …). For programs that are linked dynamically: a static one has no NSS, and
//! reads `/etc/passwd` instead. The answers may take as long as a directory service does.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one too.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// The buffer for an entry begins with so many bytes and grows up to the second number.
const ENTRY_BYTES_MIN: usize = 4 << 10;
const ENTRY_BYTES_MAX: usize = 4 << 20;
/// More groups than this the kernel gives to no process.
const GROUPS_MAX: usize = 65_536;

/// The user of that name; `None` if there is none.
pub fn by_name(name: &str) -> io::Result<Option<Account>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    // SAFETY: all pointers are valid for the call, and the buffer is as long as is said.
    let found = entry(
        |entry: *mut libc::passwd, buffer, result| unsafe {
            libc::getpwnam_r(name.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), result)
        },
        read_account,
    )?;
    with_groups(found)
}

/// The user with that id; `None` if there is none.
pub fn by_uid(uid: u32) -> io::Result<Option<Account>> {
    // SAFETY: all pointers are valid for the call, and the buffer is as long as is said.
    let found = entry(
        |entry: *mut libc::passwd, buffer, result| unsafe {
            libc::getpwuid_r(uid, entry, buffer.as_mut_ptr(), buffer.len(), result)
        },
        read_account,
    )?;
    with_groups(found)
}

/// The id of the group of that name; `None` if there is none.
pub fn gid_of(group: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(group) else { return Ok(None) };
    // SAFETY: all pointers are valid for the call, and the buffer is as long as is said.
    entry(
        |entry: *mut libc::group, buffer, result| unsafe {
            libc::getgrnam_r(name.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), result)
        },
        |group| group.gr_gid,
    )
}

/// Asks with a buffer that grows until the entry fits; `read` copies what is needed out of it.
fn entry<E, T>(
    ask: impl Fn(*mut E, &mut [libc::c_char], *mut *mut E) -> i32,
    read: impl Fn(&E) -> T,
) -> io::Result<Option<T>> {
    let mut bytes = ENTRY_BYTES_MIN;
    loop {
        let mut buffer: Vec<libc::c_char> = vec![0; bytes];
        let mut entry = MaybeUninit::<E>::uninit();
        let mut result: *mut E = std::ptr::null_mut();
        match ask(entry.as_mut_ptr(), &mut buffer, &raw mut result) {
            0 if result.is_null() => return Ok(None),
            // SAFETY: the call says that it filled the entry, which points into the buffer; both live until `read` is done.
            0 => return Ok(Some(read(unsafe { &*result }))),
            libc::ERANGE if bytes < ENTRY_BYTES_MAX => bytes *= 2,
            libc::EINTR => {}
            // What getpwnam(3) lists as "not found".
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn read_account(entry: &libc::passwd) -> Account {
    let text = |pointer: *const libc::c_char| {
        if pointer.is_null() {
            return String::new();
        }
        // SAFETY: a string of the entry, which lives as long as its buffer.
        unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
    };
    Account {
        name: text(entry.pw_name),
        uid: entry.pw_uid,
        gid: entry.pw_gid,
        groups: Vec::new(),
        home: text(entry.pw_dir),
        shell: text(entry.pw_shell),
    }
}

fn with_groups(found: Option<Account>) -> io::Result<Option<Account>> {
    let Some(mut account) = found else { return Ok(None) };
    let name = CString::new(account.name.as_str()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        // SAFETY: the list is as long as `count` says.
        let got =
            unsafe { libc::getgrouplist(name.as_ptr(), account.gid, groups.as_mut_ptr(), &raw mut count) };
        if got >= 0 {
            groups.truncate(usize::try_from(count).unwrap_or(0));
            account.groups = groups;
            return Ok(Some(account));
        }
        if groups.len() >= GROUPS_MAX {
            return Err(io::Error::other(format!(
                "user {} is in more than {GROUPS_MAX} groups",
                account.name
            )));
        }
        groups.resize(groups.len() * 2, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_by_name_and_number_and_nobody_else_is() {
        let root = by_name("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid, root.groups.contains(&0)), (0, 0, true));
        assert_eq!(by_uid(0).unwrap(), Some(root));
        assert_eq!(gid_of("root").unwrap(), Some(0));
        assert_eq!(by_name("no-such-user").unwrap(), None);
        assert_eq!(by_name("a\0b").unwrap(), None);
        assert_eq!(by_uid(4_000_000_123).unwrap(), None);
        assert_eq!(gid_of("no-such-group").unwrap(), None);
    }
}
