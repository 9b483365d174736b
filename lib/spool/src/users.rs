//! Who a run's job may become: the host's allow-list, read anew for every run.

use job::users::{AllowList, Files, Names, User};
use os::account::{self, Account};
use std::io;
use std::path::{Path, PathBuf};

/// The longest allow-list, bytes.
const ALLOW_BYTES_MAX: u64 = 256 << 10;

/// Says why the list does not let a job run as that user; the text names user, file and line, and what to do.
pub fn check_allowed(file: &Path, user: &User, names: &impl Names) -> Result<(), String> {
    let whom = format!("this agent may not run a job as \"{}\" (user id {})", user.name, user.uid);
    let list = read_list(file).map_err(|e| format!("{whom}: {e}"))?;
    list.decide(user, names)
        .map(|_line| ())
        .map_err(|e| format!("{whom}: in {} {e}; who may be, stands there", file.display()))
}

/// Reads the list.
pub fn read_list(file: &Path) -> Result<AllowList, String> {
    let text = os::trusted::read(file, ALLOW_BYTES_MAX)
        .map_err(|e| format!("the list of those who may be is not usable: {e}"))?;
    AllowList::read(&text).map_err(|e| format!("in {} {e}", file.display()))
}

/// Where a job-processor that has root's rights and its caller not finds the list: `users.allow` beside itself if that is there, else this.
pub const ALLOW_FILE: &str = "/etc/lastword/users.allow";
/// The longest `/etc/passwd` and `/etc/group`, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The list that such a program at that place believes: nothing that its caller says chooses it.
pub fn list_of_elevated(program: &Path) -> PathBuf {
    let beside = program.with_file_name("users.allow");
    match os::disk::exists(&beside) {
        Ok(false) => ALLOW_FILE.into(),
        Ok(true) | Err(_) => beside,
    }
}

/// The user that such a program at `program` may become for a caller who asked for `asked`: as the host's own files have it, since the caller's word
/// for name, groups and directories is worth nothing. The caller himself needs no line in the list.
pub fn verify(program: &Path, caller: u32, asked: &User) -> Result<User, String> {
    let (passwd, group) = host_files()?;
    let files = Files { passwd: &passwd, group: &group };
    let user = files.user(asked.uid).filter(|user| user.name == asked.name).ok_or_else(|| {
        format!(
            "no user \"{}\" with id {} is in /etc/passwd, and a job-processor that is setuid root or started through sudo believes no other source: use [users] switch = \"root\" for users of a directory service",
            asked.name, asked.uid
        )
    })?;
    if user.uid != caller {
        check_allowed(&list_of_elevated(program), &user, &files)?;
    }
    Ok(user)
}

/// The groups of a process of that user with that primary group, as initgroups(3) has them, but from the host's own files alone.
pub fn groups_of(uid: u32, gid: u32) -> Result<Vec<u32>, String> {
    let (passwd, group) = host_files()?;
    let user = Files { passwd: &passwd, group: &group }.user(uid);
    let others = user
        .map(|User { groups, gid: usual, .. }| groups.into_iter().filter(move |g| *g != usual && *g != gid));
    Ok([gid].into_iter().chain(others.into_iter().flatten()).collect())
}

/// `/etc/passwd` and `/etc/group`.
fn host_files() -> Result<(String, String), String> {
    let read = |file: &str| {
        os::trusted::read(Path::new(file), FILE_BYTES_MAX)
            .map_err(|e| format!("job-processor believes nobody: {e}"))
    };
    Ok((read("/etc/passwd")?, read("/etc/group")?))
}

/// The user of that name or number, as the host knows it (NSS).
pub fn look_up(name: &str) -> io::Result<Option<User>> {
    let found = match account::by_name(name)? {
        None => match name.parse() {
            Ok(uid) => account::by_uid(uid)?,
            Err(_) => None,
        },
        found => found,
    };
    Ok(found.map(|Account { name, uid, gid, groups, home, shell }| User {
        name,
        uid,
        gid,
        groups,
        home,
        shell,
    }))
}

/// What sudoers(5) must say so that this user may start that job-processor as root.
pub fn sudoers_line(uid: u32, program: &Path) -> String {
    let known = look_up(&uid.to_string()).ok().flatten();
    let user = known.map_or_else(|| format!("#{uid}"), |user| user.name);
    let mut path = String::new();
    for c in program.display().to_string().chars() {
        if " ,:=\\".contains(c) {
            path.push('\\');
        }
        path.push(c);
    }
    format!("{user} ALL=(root) NOPASSWD: {path}")
}

/// Names as the host knows them (NSS).
#[derive(Clone, Copy, Debug)]
pub struct HostNames;

impl Names for HostNames {
    fn uid_of(&self, user: &str) -> Option<u32> {
        account::by_name(user).ok()?.map(|account| account.uid)
    }

    fn gid_of(&self, group: &str) -> Option<u32> {
        account::gid_of(group).ok()?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_sudoers_names_the_user_and_escapes_the_path() {
        let line = |uid, path: &str| sudoers_line(uid, Path::new(path));
        assert_eq!(line(0, "/opt/job-processor"), "root ALL=(root) NOPASSWD: /opt/job-processor");
        let stranger = line(3_999_999_999, "/a b/c:d,e=f\\g");
        assert_eq!(stranger, "#3999999999 ALL=(root) NOPASSWD: /a\\ b/c\\:d\\,e\\=f\\\\g");
    }

    #[test]
    fn a_process_has_its_own_primary_group_and_those_that_name_its_user() {
        let groups = groups_of(0, 77).unwrap();
        assert_eq!(groups[0], 77);
        assert!(!groups[1..].contains(&0), "the usual primary group is not the process's: {groups:?}");
        assert_eq!(groups_of(3_999_999_999, 78), Ok(vec![78]));
    }
}
