//! This program with root's rights for a caller who has not got them, as a setuid root one or through sudo: what it believes of him.
//!
//! | the caller says            | what is believed                                                                                   |
//! |----------------------------|----------------------------------------------------------------------------------------------------|
//! | the environment            | language and time zone; all else is forgotten before the first line of this file that acts            |
//! | a run's directory          | that its log is his: every file is opened with the caller's rights; data root and run must be his own |
//! | a user                     | the id; name, groups, home and shell are those of `/etc/passwd` and `/etc/group`, the list is asked anew |
//! | a control group            | nothing: it is made and entered with the caller's rights                                             |
//!
//! Who the caller is:
//!
//! | real user | `SUDO_…` is set | first argument | this is                                                                     |
//! |-----------|-----------------|----------------|-----------------------------------------------------------------------------|
//! | not root  | or not          |                | setuid if the kernel says so: the caller is the real user. Else nobody special |
//! | not root  | or not          | `--sudo`       | refused: anybody can set a variable                                          |
//! | root      | no              |                | root's own agent                                                             |
//! | root      | yes             | `--sudo`       | started through sudo: the caller is the user that sudo names                 |
//! | root      | yes             |                | refused: whoever may call sudo could leave the argument out                  |
//! | root      | no              | `--sudo`       | refused: nobody says who the caller is                                       |
//!
//! Who may call at all is said by the program's mode (4750, root, and the agent's own group), or by sudoers.

use job::users::User;
use os::child::Credentials;
use spool::RunDir;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What sudo tells of who called it, whatever he had in his environment.
const USER_ID: &str = "SUDO_UID";
const GROUP_ID: &str = "SUDO_GID";

/// How this program came to rights that its caller has not got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elevation {
    /// It did not.
    None,
    /// It is setuid root.
    Setuid,
    /// Through sudo, for that user with that primary group.
    Sudo { uid: u32, gid: u32 },
}

/// What decides about that.
struct Signs {
    real_uid: u32,
    /// The kernel says that this program has more rights than who started it.
    is_secure: bool,
    user_id: Option<OsString>,
    group_id: Option<OsString>,
}

/// Takes on the caller's rights if this program has more. To be called first.
pub(crate) fn settle(through_sudo: bool) -> Result<Elevation, String> {
    let signs = Signs {
        real_uid: os::process::real_uid(),
        is_secure: os::privilege::is_elevated(),
        user_id: std::env::var_os(USER_ID),
        group_id: std::env::var_os(GROUP_ID),
    };
    let elevation = decide(through_sudo, &signs)?;
    let told = match elevation {
        Elevation::None => return Ok(elevation),
        Elevation::Setuid => None,
        Elevation::Sudo { uid, gid } => {
            check_untraced()?;
            Some(Credentials { uid, gid, groups: spool::users::groups_of(uid, gid)? })
        }
    };
    os::privilege::settle(told.as_ref()).map_err(|e| format!("cannot give up root's rights: {e}"))?;
    Ok(elevation)
}

fn decide(through_sudo: bool, signs: &Signs) -> Result<Elevation, String> {
    const ROOT: u32 = 0;
    let number = |id: &Option<OsString>| id.as_ref()?.to_str()?.parse::<u32>().ok();
    match (through_sudo, signs.real_uid) {
        (false, ROOT) if signs.user_id.is_some() => Err(format!(
            "started through sudo ({USER_ID} is set) without --sudo: nothing is done for whom nobody knows"
        )),
        (false, _) => Ok(if signs.is_secure { Elevation::Setuid } else { Elevation::None }),
        (true, ROOT) => match (number(&signs.user_id), number(&signs.group_id)) {
            (Some(ROOT), Some(_)) => {
                Err("root called sudo: an agent that is root needs none, set [users] switch = \"root\""
                    .to_owned())
            }
            (Some(uid), Some(gid)) => Ok(Elevation::Sudo { uid, gid }),
            (None, _) | (_, None) => {
                Err(format!("--sudo, and sudo does not say who called it ({USER_ID}, {GROUP_ID})"))
            }
        },
        (true, uid) => Err(format!(
            "--sudo, and this is user id {uid}: only what sudo started as root believes {USER_ID}"
        )),
    }
}

/// What sudo follows may execute nothing any more when sudo has gone.
fn check_untraced() -> Result<(), String> {
    match os::procfs::is_traced_by_parent() {
        Ok(false) => Ok(()),
        Ok(true) => Err("sudo follows what job-processor executes: in sudoers, set !intercept and !log_subcmds for it (Defaults!PROGRAM …)".to_owned()),
        Err(e) => Err(format!("whether sudo follows this program cannot be read: {e}")),
    }
}

/// Checks the caller and the user that it asked for. The error is for people.
pub(crate) fn verify(dir: &RunDir, user: Option<&User>) -> Result<Option<User>, String> {
    let caller = os::process::real_uid();
    let root = dir.root().ok_or("the run directory is in no data root")?;
    for path in [root.path(), dir.path()] {
        check_own(path, caller)?;
    }
    user.map(|asked| verify_user(caller, asked)).transpose()
}

/// The user as this host's own files have it, if the list lets the caller have it.
pub(crate) fn verify_user(caller: u32, asked: &User) -> Result<User, String> {
    let program = std::env::current_exe().map_err(|e| format!("where is this program? {e}"))?;
    spool::users::verify(&program, caller, asked)
}

fn check_own(path: &Path, caller: u32) -> Result<(), String> {
    const OTHERS_WRITE: u32 = 0o022;
    let metadata = std::fs::symlink_metadata(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let is_own = metadata.is_dir() && metadata.uid() == caller && metadata.mode() & OTHERS_WRITE == 0;
    if is_own && path.is_absolute() {
        return Ok(());
    }
    Err(format!(
        "{} is not the directory of user id {caller} alone, who started job-processor",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real user, whether the kernel says that there are more rights, what is in `SUDO_UID` and `SUDO_GID`.
    fn decided(
        through_sudo: bool,
        real_uid: u32,
        is_secure: bool,
        told: [Option<&str>; 2],
    ) -> Result<Elevation, String> {
        let [user_id, group_id] = told.map(|value| value.map(OsString::from));
        decide(through_sudo, &Signs { real_uid, is_secure, user_id, group_id })
    }

    #[test]
    fn what_sudo_says_is_believed_by_root_only() {
        let told = [Some("5"), Some("60")];
        assert_eq!(decided(true, 0, false, told), Ok(Elevation::Sudo { uid: 5, gid: 60 }));
        for is_secure in [false, true] {
            assert!(decided(true, 1000, is_secure, told).unwrap_err().contains("user id 1000"));
        }
        assert_eq!(decided(false, 1000, false, told), Ok(Elevation::None));
        assert_eq!(decided(false, 1000, true, told), Ok(Elevation::Setuid));
    }

    #[test]
    fn whoever_may_call_sudo_gains_nothing_by_leaving_the_argument_out() {
        for told in [[Some("5"), Some("60")], [Some("0"), Some("0")], [Some("x"), None]] {
            assert!(decided(false, 0, false, told).unwrap_err().contains("without --sudo"), "{told:?}");
        }
        assert_eq!(decided(false, 0, false, [None, None]), Ok(Elevation::None));
    }

    #[test]
    fn a_caller_that_is_not_told_or_is_root_is_refused() {
        for told in [
            [None, None],
            [Some("5"), None],
            [None, Some("60")],
            [Some(""), Some("60")],
            [Some("-1"), Some("60")],
            [Some("5 "), Some("60")],
            [Some("4294967296"), Some("60")],
        ] {
            assert!(decided(true, 0, false, told).unwrap_err().contains("who called it"), "{told:?}");
        }
        assert!(decided(true, 0, false, [Some("0"), Some("0")]).unwrap_err().contains("root called sudo"));
    }
}
