//! Who a job may run as: a host's user, and the list that says who may be switched to.
//!
//! ```text
//! # one entry a line; `!` denies, and a line that denies wins over every line that allows
//! batch
//! @operators
//! uid:1000-1999
//! !alice
//! ```
//!
//! Root is allowed by its own name only, never by a group or a range. A list with a line that is not understood allows nobody: what was meant to be
//! denied is not known then.

use std::fmt;

/// A user of a host, as its databases have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
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

/// One line, `name:uid:gid:groups:home:shell`, as it is handed to a job-processor.
impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let User { name, uid, gid, groups, home, shell } = self;
        let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
        write!(f, "{name}:{uid}:{gid}:{}:{home}:{shell}", groups.join(","))
    }
}

impl User {
    /// Reads what [`User`] shows; `None` for anything else.
    pub fn read(line: &str) -> Option<User> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, uid, gid, groups, home, shell] = fields.as_slice() else { return None };
        let groups = groups.split(',').filter(|group| !group.is_empty()).map(|group| group.parse().ok());
        let is_plain = !name.is_empty() && !line.chars().any(char::is_control);
        is_plain.then_some(User {
            name: (*name).to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            groups: groups.collect::<Option<_>>()?,
            home: (*home).to_owned(),
            shell: (*shell).to_owned(),
        })
    }
}

/// `/etc/passwd` and `/etc/group`, for a program that may believe nobody else (passwd(5), group(5)).
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The text of `/etc/passwd`.
    pub passwd: &'a str,
    /// The text of `/etc/group`.
    pub group: &'a str,
}

impl Files<'_> {
    /// The first user with that id, and all his groups.
    pub fn user(&self, uid: u32) -> Option<User> {
        let entry = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, id, gid, _, home, shell] = fields.as_slice() else { return None };
            let (id, gid) = (id.parse::<u32>().ok()?, gid.parse::<u32>().ok()?);
            let (name, home, shell) = ((*name).to_owned(), (*home).to_owned(), (*shell).to_owned());
            (id == uid && !name.is_empty()).then_some(User { name, uid, gid, groups: vec![gid], home, shell })
        };
        let mut user = self.passwd.lines().find_map(entry)?;
        let member =
            |(_, gid, members): (&str, u32, &str)| members.split(',').any(|m| m == user.name).then_some(gid);
        let others: Vec<u32> = self.groups().filter_map(member).filter(|gid| *gid != user.gid).collect();
        user.groups.extend(others);
        Some(user)
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = fields.as_slice() else { return None };
            Some((*name, gid.parse().ok()?, *members))
        })
    }
}

impl Names for Files<'_> {
    fn uid_of(&self, user: &str) -> Option<u32> {
        let entry = |line: &str| {
            let mut fields = line.split(':');
            (fields.next()? == user).then(|| fields.nth(1)?.parse().ok())?
        };
        self.passwd.lines().find_map(entry)
    }

    fn gid_of(&self, group: &str) -> Option<u32> {
        self.groups().find_map(|(name, gid, _)| (name == group).then_some(gid))
    }
}

/// The list of those who may be switched to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// From 1.
    line: usize,
    /// As it was written.
    text: String,
    denies: bool,
    whom: Whom,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    User(String),
    Group(String),
    Uids(u32, u32),
}

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line} (\"{text}\") is not understood, so nobody may be switched to; write a user's name, @GROUP or uid:FIRST-LAST, with ! before it to deny"
)]
pub struct ParseAllowListError {
    /// From 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

/// Why a user may not be switched to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// A line denies it.
    #[error("line {line} (\"{text}\") denies it")]
    Denied {
        /// From 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// No line allows it.
    #[error("no line allows it")]
    NoLine,
    /// Root needs a line with its own name.
    #[error("no line names it, and root is never allowed by a group or a range")]
    Root,
}

/// What is known of names on the host: user ids and group ids.
pub trait Names {
    /// The user id of that name.
    fn uid_of(&self, user: &str) -> Option<u32>;
    /// The group id of that name.
    fn gid_of(&self, group: &str) -> Option<u32>;
}

impl AllowList {
    /// Reads a list. `#` begins a comment.
    pub fn read(text: &str) -> Result<AllowList, ParseAllowListError> {
        let mut entries = Vec::new();
        for (line, whole) in (1..).zip(text.lines()) {
            let text = whole.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let (denies, rest) =
                text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim_start()));
            let whom = Whom::read(rest).ok_or(ParseAllowListError { line, text: text.to_owned() })?;
            entries.push(Entry { line, text: text.to_owned(), denies, whom });
        }
        Ok(AllowList { entries })
    }

    /// Decides about a user; the line that allows it.
    pub fn decide(&self, user: &User, names: &impl Names) -> Result<usize, NotAllowed> {
        let of = |denies| self.entries.iter().filter(move |entry| entry.denies == denies);
        if let Some(entry) = of(true).find(|entry| entry.whom.is_denied(user, names)) {
            return Err(NotAllowed::Denied { line: entry.line, text: entry.text.clone() });
        }
        let allowed = of(false).find(|entry| entry.whom.is_allowed(user, names));
        let refusal = if user.uid == 0 { NotAllowed::Root } else { NotAllowed::NoLine };
        allowed.map(|entry| entry.line).ok_or(refusal)
    }
}

impl Whom {
    fn read(text: &str) -> Option<Whom> {
        let is_name = |name: &str| {
            !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || ":!@,".contains(c))
        };
        if let Some(range) = text.strip_prefix("uid:") {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            return (first <= last).then_some(Whom::Uids(first, last));
        }
        match text.strip_prefix('@') {
            Some(group) => is_name(group).then(|| Whom::Group(group.to_owned())),
            None => is_name(text).then(|| Whom::User(text.to_owned())),
        }
    }

    fn is_allowed(&self, user: &User, names: &impl Names) -> bool {
        match self {
            Whom::User(name) => *name == user.name,
            Whom::Group(_) | Whom::Uids(..) => user.uid != 0 && self.is_denied(user, names),
        }
    }

    /// Whether it means the user, also under another name of the same id.
    fn is_denied(&self, user: &User, names: &impl Names) -> bool {
        match self {
            Whom::User(name) => *name == user.name || names.uid_of(name) == Some(user.uid),
            Whom::Group(group) => {
                names.gid_of(group).is_some_and(|gid| user.gid == gid || user.groups.contains(&gid))
            }
            Whom::Uids(first, last) => (*first..=*last).contains(&user.uid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host;

    impl Names for Host {
        fn uid_of(&self, user: &str) -> Option<u32> {
            [("root", 0), ("toor", 0), ("ann", 1000), ("ann2", 1000), ("bob", 1001)]
                .into_iter()
                .find_map(|(name, uid)| (name == user).then_some(uid))
        }

        fn gid_of(&self, group: &str) -> Option<u32> {
            [("ops", 50), ("wheel", 0)].into_iter().find_map(|(name, gid)| (name == group).then_some(gid))
        }
    }

    fn user(name: &str, groups: &[u32]) -> User {
        let uid = Host.uid_of(name).unwrap();
        let (home, shell) = ("/var/ann".to_owned(), "/bin/sh".to_owned());
        User { name: name.into(), uid, gid: uid, groups: groups.to_vec(), home, shell }
    }

    fn decide(list: &str, user: &User) -> Result<usize, NotAllowed> {
        AllowList::read(list).unwrap().decide(user, &Host)
    }

    #[test]
    fn names_groups_and_ranges_allow_and_the_line_is_told() {
        let ann = user("ann", &[7, 50]);
        assert_eq!(decide("# nobody else\n\nann  # nightly\n", &ann), Ok(3));
        assert_eq!(decide("bob\n@ops\n", &ann), Ok(2));
        assert_eq!(decide("uid:1000-1999", &ann), Ok(1));
        assert_eq!(decide("uid:1000", &ann), Ok(1));
        for list in ["", "bob", "@wheel", "@nosuch", "uid:1001-1999"] {
            assert_eq!(decide(list, &ann), Err(NotAllowed::NoLine), "{list}");
        }
    }

    #[test]
    fn a_line_that_denies_wins_wherever_it_stands_and_under_every_name() {
        let ann = user("ann", &[50]);
        for list in
            ["!ann\nuid:1-9999", "uid:1-9999\n!ann", "uid:1-9999\n! ann2", "ann\n!@ops", "ann\n!uid:1000"]
        {
            assert!(matches!(decide(list, &ann), Err(NotAllowed::Denied { .. })), "{list}");
        }
        assert_eq!(decide("uid:1-9999\n!bob", &ann), Ok(1));
        let said = decide("ann\n!@ops", &ann).unwrap_err().to_string();
        assert_eq!(said, "line 2 (\"!@ops\") denies it");
    }

    #[test]
    fn root_is_allowed_by_its_own_name_only() {
        for list in ["uid:0-9999", "@wheel", "uid:0", "ann"] {
            assert_eq!(decide(list, &user("root", &[0])), Err(NotAllowed::Root), "{list}");
        }
        assert_eq!(decide("root", &user("root", &[0])), Ok(1));
        assert_eq!(decide("root", &user("toor", &[0])), Err(NotAllowed::Root));
    }

    #[test]
    fn a_line_that_is_not_understood_makes_the_list_useless_and_is_named() {
        for (line, text) in
            [(1, "two words"), (1, "uid:9-1"), (1, "uid:x"), (1, "@"), (1, "!"), (1, "!!ann"), (1, "a:b")]
        {
            let error = AllowList::read(text).unwrap_err();
            assert_eq!((error.line, error.text.as_str()), (line, text));
        }
        assert_eq!(AllowList::read("ann\n\n gid:1 \n").unwrap_err().line, 3);
    }

    #[test]
    fn the_hosts_files_tell_ids_groups_and_directories() {
        let files = Files {
            passwd: "root:x:0:0:root:/r:/bin/bash\nbroken\nann:x:1000:100:Ann,,:/var/ann:/bin/sh\n+nis\n",
            group: "users:x:100:ann\nops:x:50:bob,ann\nann2:x:60:ann3\nbad:x:\n",
        };
        let ann = files.user(1000).unwrap();
        assert_eq!(ann.to_string(), "ann:1000:100:100,50:/var/ann:/bin/sh");
        assert_eq!((files.user(7), files.uid_of("ann"), files.uid_of("bob")), (None, Some(1000), None));
        assert_eq!(
            (files.gid_of("ops"), files.gid_of("bad"), files.gid_of("nosuch")),
            (Some(50), None, None)
        );
    }

    #[test]
    fn a_user_survives_its_line_and_nothing_else_is_one() {
        let ann = user("ann", &[7, 50]);
        assert_eq!(ann.to_string(), "ann:1000:1000:7,50:/var/ann:/bin/sh");
        assert_eq!(User::read(&ann.to_string()), Some(ann));
        assert!(User::read("a:1:1::/:/bin/sh").is_some_and(|user| user.groups.is_empty()));
        for line in
            ["", "a", "a:1:1::/", "a:-1:1::/:/bin/sh", "a:1:1:x:/:/bin/sh", ":1:1::/:/b", "a:1:1::/\n:/b"]
        {
            assert_eq!(User::read(line), None, "{line}");
        }
    }
}
