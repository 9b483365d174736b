//! Who may do what: users and their tokens. A user is the name that owns tokens; disabled, none of them opens anything.
//!
//! Decides only: what comes out is written by the committer, and then told to [`crate::auth::Tokens`], which every request asks.

use crate::auth::Role;
use crate::db::{Entry, TokenRecord, UserRecord};
use std::collections::BTreeMap;

/// A command about users or tokens.
#[derive(Clone, Debug)]
pub enum AccessInput {
    /// A new user.
    AddUser {
        /// Its name.
        name: String,
    },
    /// Nothing opens with its tokens any more, or they open again.
    DisableUser {
        /// Whose.
        name: String,
        /// Disable or enable.
        disabled: bool,
        /// Even if no admin is left.
        force: bool,
    },
    /// The user goes, and its tokens are revoked.
    RemoveUser {
        /// Whose.
        name: String,
        /// Even if no admin is left.
        force: bool,
    },
    /// A new token; its user is made if there is none.
    NewToken(TokenRecord),
    /// A token opens nothing any more.
    RevokeToken {
        /// Which.
        id: String,
        /// Even if no admin is left.
        force: bool,
    },
}

/// Why it cannot be done. The text says what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    /// No such user.
    #[error("there is no user \"{0}\"; see `lastword user list`")]
    NoSuchUser(String),
    /// No such token.
    #[error("there is no token \"{0}\"; see `lastword token list`")]
    NoSuchToken(String),
    /// That name is taken.
    #[error("there is already a {0} \"{1}\"")]
    NameTaken(&'static str, String),
    /// Not a name.
    #[error(
        "\"{1}\" cannot be the name of a {0}: 1 to 64 letters, digits, dots, hyphens, underscores and @ are allowed, the first a letter or digit"
    )]
    BadName(&'static str, String),
    /// The user is disabled.
    #[error("user \"{0}\" is disabled; enable it with `lastword user enable {0}`")]
    Disabled(String),
    /// It was revoked before.
    #[error("token \"{0}\" is revoked already")]
    AlreadyRevoked(String),
    /// Nobody could undo it.
    #[error(
        "this would leave no token with the role admin; make another one first (`lastword token new NAME --role admin`), or use --force: \
         then the server makes a new admin.token when it is started without that file"
    )]
    LastAdmin,
}

/// Every user and token.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    users: BTreeMap<String, UserRecord>,
    tokens: BTreeMap<String, TokenRecord>,
}

impl Access {
    pub(super) fn new(users: Vec<UserRecord>, tokens: Vec<TokenRecord>) -> Access {
        Access {
            users: users.into_iter().map(|user| (user.name.clone(), user)).collect(),
            tokens: tokens.into_iter().map(|token| (token.id.clone(), token)).collect(),
        }
    }

    /// Takes a command; what is to be written. A refused one changes nothing.
    pub(super) fn on(&mut self, input: AccessInput, now_ms: i64) -> Result<Vec<Entry>, AccessRefusal> {
        let mut next = self.clone(); // there are few users and tokens, and they seldom change
        let (entries, force) = match input {
            AccessInput::AddUser { name } => (next.add_user(name, now_ms)?, true),
            AccessInput::NewToken(token) => (next.new_token(token, now_ms)?, true),
            AccessInput::DisableUser { name, disabled, force } => (next.disable(&name, disabled)?, force),
            AccessInput::RemoveUser { name, force } => (next.remove_user(&name, now_ms)?, force),
            AccessInput::RevokeToken { id, force } => (next.revoke(&id, now_ms)?, force),
        };
        if !force && self.has_admin(now_ms) && !next.has_admin(now_ms) {
            return Err(AccessRefusal::LastAdmin);
        }
        *self = next;
        Ok(entries)
    }

    fn has_admin(&self, now_ms: i64) -> bool {
        let enabled = |name: &String| self.users.get(name).is_some_and(|user| !user.disabled);
        let admin = Role::Admin.name();
        self.tokens
            .values()
            .any(|token| token.role == admin && token.is_valid(now_ms) && enabled(&token.user))
    }

    fn add_user(&mut self, name: String, now_ms: i64) -> Result<Vec<Entry>, AccessRefusal> {
        check_name("user", &name)?;
        if self.users.contains_key(&name) {
            return Err(AccessRefusal::NameTaken("user", name));
        }
        let user = UserRecord { name, disabled: false, created_at_ms: now_ms };
        self.users.insert(user.name.clone(), user.clone());
        Ok(vec![Entry::User(user)])
    }

    fn disable(&mut self, name: &str, disabled: bool) -> Result<Vec<Entry>, AccessRefusal> {
        let user = self.users.get_mut(name).ok_or_else(|| AccessRefusal::NoSuchUser(name.to_owned()))?;
        user.disabled = disabled;
        Ok(vec![Entry::User(user.clone())])
    }

    fn remove_user(&mut self, name: &str, now_ms: i64) -> Result<Vec<Entry>, AccessRefusal> {
        self.users.remove(name).ok_or_else(|| AccessRefusal::NoSuchUser(name.to_owned()))?;
        let mut entries = vec![Entry::UserRemoved(name.to_owned())];
        for token in self.tokens.values_mut().filter(|token| token.user == name) {
            token.revoked_at_ms.get_or_insert(now_ms);
            entries.push(Entry::Token(token.clone()));
        }
        Ok(entries)
    }

    fn new_token(&mut self, token: TokenRecord, now_ms: i64) -> Result<Vec<Entry>, AccessRefusal> {
        check_name("token", &token.name)?;
        let taken = |other: &TokenRecord| other.name == token.name && other.is_valid(now_ms);
        if self.tokens.values().any(taken) {
            return Err(AccessRefusal::NameTaken("token", token.name));
        }
        let mut entries = match self.users.get(&token.user) {
            Some(user) if user.disabled => return Err(AccessRefusal::Disabled(token.user)),
            Some(_) => Vec::new(),
            None => self.add_user(token.user.clone(), now_ms)?,
        };
        self.tokens.insert(token.id.clone(), token.clone());
        entries.push(Entry::Token(token));
        Ok(entries)
    }

    fn revoke(&mut self, id: &str, now_ms: i64) -> Result<Vec<Entry>, AccessRefusal> {
        let token = self.tokens.get_mut(id).ok_or_else(|| AccessRefusal::NoSuchToken(id.to_owned()))?;
        if token.revoked_at_ms.is_some() {
            return Err(AccessRefusal::AlreadyRevoked(id.to_owned()));
        }
        token.revoked_at_ms = Some(now_ms);
        Ok(vec![Entry::Token(token.clone())])
    }

    /// A token was used at that moment.
    pub(super) fn on_used(&mut self, id: &str, at_ms: i64) {
        if let Some(token) = self.tokens.get_mut(id) {
            token.used_at_ms = Some(at_ms);
        }
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), AccessRefusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.len() > NAME_BYTES_MAX || !starts || !name.chars().all(legal) {
        return Err(AccessRefusal::BadName(what, name.to_owned()));
    }
    Ok(())
}

/// The longest name of a user or a token.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: &str, user: &str, role: Role) -> TokenRecord {
        TokenRecord {
            id: id.into(),
            name: format!("t-{id}"),
            user: user.into(),
            role: role.name().into(),
            hash: String::new(),
            created_at_ms: 0,
            expires_at_ms: None,
            revoked_at_ms: None,
            used_at_ms: None,
        }
    }

    fn with_one_admin() -> Access {
        let mut access = Access::default();
        access.on(AccessInput::NewToken(token("1", "anna", Role::Admin)), 1).unwrap();
        access
    }

    #[test]
    fn a_token_makes_its_user_and_its_name_is_its_own_while_it_is_valid() {
        let mut access = with_one_admin();
        let again = TokenRecord { id: "2".into(), ..token("1", "anna", Role::Viewer) };
        let taken = access.on(AccessInput::NewToken(again.clone()), 2);
        assert_eq!(taken.unwrap_err(), AccessRefusal::NameTaken("token", "t-1".into()));
        access.on(AccessInput::RevokeToken { id: "1".into(), force: true }, 3).unwrap();
        assert_eq!(access.on(AccessInput::NewToken(again), 4).unwrap().len(), 1, "anna is there already");
        for wrong in ["", "a b", "-a", "é"] {
            let refused = access.on(AccessInput::AddUser { name: wrong.into() }, 5).unwrap_err();
            assert!(matches!(refused, AccessRefusal::BadName("user", _)));
        }
    }

    #[test]
    fn the_last_admin_stays_unless_forced() {
        let ways = |force| {
            [
                AccessInput::RevokeToken { id: "1".into(), force },
                AccessInput::DisableUser { name: "anna".into(), disabled: true, force },
                AccessInput::RemoveUser { name: "anna".into(), force },
            ]
        };
        for (refused, forced) in ways(false).into_iter().zip(ways(true)) {
            let mut access = with_one_admin();
            access.on(AccessInput::NewToken(token("2", "bert", Role::Operator)), 1).unwrap();
            assert_eq!(access.on(refused, 2).unwrap_err(), AccessRefusal::LastAdmin);
            assert!(access.has_admin(2), "a refusal changes nothing");
            access.on(forced, 2).unwrap();
            assert!(!access.has_admin(2));
        }
    }

    #[test]
    fn with_another_admin_the_first_may_go() {
        let mut access = with_one_admin();
        let soon = TokenRecord { expires_at_ms: Some(10), ..token("2", "bert", Role::Admin) };
        access.on(AccessInput::NewToken(soon), 1).unwrap();
        let revoke = || AccessInput::RevokeToken { id: "1".into(), force: false };
        assert_eq!(
            access.on(revoke(), 10).unwrap_err(),
            AccessRefusal::LastAdmin,
            "the other one has expired"
        );
        access.on(revoke(), 9).unwrap();
        assert_eq!(access.on(revoke(), 9).unwrap_err(), AccessRefusal::AlreadyRevoked("1".into()));
    }

    #[test]
    fn a_removed_user_has_no_valid_token_and_a_disabled_one_gets_none() {
        let mut access = with_one_admin();
        access.on(AccessInput::NewToken(token("2", "bert", Role::Viewer)), 1).unwrap();
        access.on(AccessInput::DisableUser { name: "bert".into(), disabled: true, force: false }, 2).unwrap();
        let refused = access.on(AccessInput::NewToken(token("3", "bert", Role::Viewer)), 3).unwrap_err();
        assert_eq!(refused, AccessRefusal::Disabled("bert".into()));
        let entries = access.on(AccessInput::RemoveUser { name: "bert".into(), force: false }, 4).unwrap();
        assert_eq!(entries.len(), 2);
        assert!(matches!(&entries[1], Entry::Token(token) if token.revoked_at_ms == Some(4)));
    }
}
