//! Bearer tokens: `lw_<id>_<secret>`. The database has argon2 of the secret; what was verified once is remembered by its SHA-256,
//! so that only the first request with a token is expensive. What is remembered is only whose token it is: whether that may still do
//! anything is looked up every time, so a revocation is obeyed at once.

use crate::db::{Database, DbError, Entry, TokenRecord, UserRecord};
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// What a token may do; the later, the more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May look.
    #[default]
    Viewer,
    /// May submit, kill, hold.
    Operator,
    /// May everything.
    Admin,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn of_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Who sent a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub name: String,
    /// The name of the user's token.
    pub token: String,
    /// The part of the token by which it is found.
    pub token_id: String,
    /// What it may do.
    pub role: Role,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// Nobody's.
    #[error("the token is not known to this server")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired; ask an administrator for a new one")]
    Expired,
    /// Somebody took it back.
    #[error("the token was revoked; ask an administrator for a new one")]
    Revoked,
    /// Its user may nothing any more.
    #[error("the token's user is disabled; ask an administrator")]
    Disabled,
}

/// Checks tokens; cheap to clone. What it knows comes from the core, after each commit.
#[derive(Clone)]
pub struct Tokens {
    shared: Arc<Shared>,
}

struct Shared {
    known: Mutex<Known>,
    /// SHA-256 of a token that was verified → its id.
    verified: Mutex<HashMap<[u8; 32], String>>,
    /// argon2 costs 19 MiB and some milliseconds: only so many at once.
    workers: Semaphore,
}

#[derive(Default)]
struct Known {
    tokens: HashMap<String, TokenRecord>,
    users: HashMap<String, UserRecord>,
    /// Used since the last look, and when.
    used: HashMap<String, i64>,
}

/// How many tokens are verified at the same time.
const VERIFIERS_MAX: usize = 2;
/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 256;

impl Tokens {
    /// Knows these users and tokens.
    pub fn new(users: Vec<UserRecord>, tokens: Vec<TokenRecord>) -> Tokens {
        let known = Known {
            tokens: tokens.into_iter().map(|token| (token.id.clone(), token)).collect(),
            users: users.into_iter().map(|user| (user.name.clone(), user)).collect(),
            used: HashMap::new(),
        };
        let workers = Semaphore::new(VERIFIERS_MAX);
        Tokens { shared: Arc::new(Shared { known: Mutex::new(known), verified: Mutex::default(), workers }) }
    }

    /// Whose token it is.
    pub async fn verify(&self, bearer: &str, now_ms: i64) -> Result<Caller, TokenRefusal> {
        if bearer.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefusal::Unknown);
        }
        let digest: [u8; 32] = Sha256::digest(bearer.as_bytes()).into();
        if let Some(id) = self.remembered(&digest) {
            return self.caller(&id, now_ms);
        }
        let id = id_of(bearer).ok_or(TokenRefusal::Unknown)?.to_owned();
        let hash = lock(&self.shared.known).tokens.get(&id).ok_or(TokenRefusal::Unknown)?.hash.clone();
        let _permit = self.shared.workers.acquire().await.map_err(|_| TokenRefusal::Unknown)?;
        if self.remembered(&digest).is_none() {
            let bearer = bearer.to_owned();
            let matches = tokio::task::spawn_blocking(move || matches_hash(&bearer, &hash)).await;
            if !matches.unwrap_or(false) {
                return Err(TokenRefusal::Unknown);
            }
            lock(&self.shared.verified).insert(digest, id.clone());
        }
        self.caller(&id, now_ms)
    }

    /// Whether a token that was verified before still opens something.
    pub fn is_open(&self, token_id: &str, now_ms: i64) -> bool {
        lock(&self.shared.known).check(token_id, now_ms).is_ok()
    }

    fn caller(&self, id: &str, now_ms: i64) -> Result<Caller, TokenRefusal> {
        let mut known = lock(&self.shared.known);
        let caller = known.check(id, now_ms)?;
        known.used.insert(id.to_owned(), now_ms);
        Ok(caller)
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<String> {
        lock(&self.shared.verified).get(digest).cloned()
    }

    /// Something about users or tokens was committed.
    pub(crate) fn on_written(&self, entry: &Entry) {
        let mut known = lock(&self.shared.known);
        match entry {
            Entry::User(user) => drop(known.users.insert(user.name.clone(), user.clone())),
            Entry::UserRemoved(name) => drop(known.users.remove(name)),
            Entry::Token(token) => drop(known.tokens.insert(token.id.clone(), token.clone())),
            Entry::TokenUsed(id, at_ms) => {
                if let Some(token) = known.tokens.get_mut(id) {
                    token.used_at_ms = Some(*at_ms);
                }
            }
            Entry::Audit(_) | Entry::Answered(_) | Entry::File(_) => {}
        }
    }

    /// The tokens that were used since the last time, and when.
    pub(crate) fn take_used(&self) -> Vec<(String, i64)> {
        std::mem::take(&mut lock(&self.shared.known).used).into_iter().collect()
    }

    /// Every token, by name, with its latest use.
    pub fn list(&self) -> Vec<TokenRecord> {
        let known = lock(&self.shared.known);
        let with_use = |token: &TokenRecord| {
            let used_at_ms = known.used.get(&token.id).copied().or(token.used_at_ms);
            TokenRecord { used_at_ms, ..token.clone() }
        };
        let mut tokens: Vec<_> = known.tokens.values().map(with_use).collect();
        tokens.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        tokens
    }

    /// Every user, by name.
    pub fn users(&self) -> Vec<UserRecord> {
        let mut users: Vec<_> = lock(&self.shared.known).users.values().cloned().collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }
}

impl Known {
    fn check(&self, id: &str, now_ms: i64) -> Result<Caller, TokenRefusal> {
        let token = self.tokens.get(id).ok_or(TokenRefusal::Unknown)?;
        let role = Role::of_name(&token.role).ok_or(TokenRefusal::Unknown)?;
        if token.revoked_at_ms.is_some() {
            return Err(TokenRefusal::Revoked);
        }
        if !token.is_valid(now_ms) {
            return Err(TokenRefusal::Expired);
        }
        if self.users.get(&token.user).is_none_or(|user| user.disabled) {
            return Err(TokenRefusal::Disabled);
        }
        let TokenRecord { id, name, user, .. } = token.clone();
        Ok(Caller { name: user, token: name, token_id: id, role })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a token of this name for this user: the record, and the token itself, which nobody can show again.
pub fn new_record(
    name: &str,
    user: &str,
    role: Role,
    now_ms: i64,
    expires_at_ms: Option<i64>,
) -> anyhow::Result<(TokenRecord, String)> {
    let token = new_token()?;
    let record = TokenRecord { expires_at_ms, ..record_of(&token, name, user, role, now_ms)? };
    Ok((record, token))
}

/// Sees to it that `<data_root>/admin.token` has a token that works. A file that is there is kept, and its token made valid if it is not known
/// (somebody put it there, or the database was created anew); one that was revoked stays so.
pub fn ensure_admin_token(database: &dyn Database, data_root: &Path, now_ms: i64) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let path = data_root.join("admin.token");
    let token = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if has_admin(database, now_ms)? {
                return Ok(()); // somebody moved the file elsewhere, on purpose
            }
            // The file first: killed right here, the next start finds it and makes its token valid.
            let token = new_token()?;
            write_secret_file(&path, &token)?;
            token
        }
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    let id = id_of(&token).with_context(|| {
        format!("{} does not hold a token; remove the file to get a new one", path.display())
    })?;
    let known = database.tokens()?.into_iter().find(|record| record.id == id);
    match known.filter(|record| matches_hash(&token, &record.hash)) {
        Some(record) if record.is_valid(now_ms) => Ok(()),
        Some(_) => {
            tracing::warn!(
                "{} holds a token that was revoked or has expired; remove the file",
                path.display()
            );
            Ok(())
        }
        None => {
            let record = record_of(&token, ADMIN, ADMIN, Role::Admin, now_ms)?;
            let user = UserRecord { name: ADMIN.to_owned(), disabled: false, created_at_ms: now_ms };
            database.commit_with(&[], &[Entry::User(user), Entry::Token(record)])?;
            Ok(())
        }
    }
}

/// The user and the token that the first start makes.
const ADMIN: &str = "admin";

fn has_admin(database: &dyn Database, now_ms: i64) -> Result<bool, DbError> {
    let users = database.users()?;
    let enabled = |name: &String| users.iter().any(|user| user.name == *name && !user.disabled);
    let is_admin = |token: &TokenRecord| {
        token.role == Role::Admin.name() && token.is_valid(now_ms) && enabled(&token.user)
    };
    Ok(database.tokens()?.iter().any(is_admin))
}

/// Writes a file for its owner's eyes only, complete or not at all.
fn write_secret_file(path: &Path, text: &str) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("token.new");
    let _ = std::fs::remove_file(&temporary);
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        // A link, not a rename: it fails if the file is there meanwhile.
        std::fs::hard_link(&temporary, path)?;
        std::fs::remove_file(&temporary)?;
        std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("writing the admin token to {}", path.display()))
}

fn record_of(token: &str, name: &str, user: &str, role: Role, now_ms: i64) -> anyhow::Result<TokenRecord> {
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(|e| anyhow::anyhow!("making a salt: {e}"))?;
    let hash = Argon2::default()
        .hash_password(token.as_bytes(), &salt)
        .map_err(|e| anyhow::anyhow!("hashing the token \"{name}\": {e}"))?;
    Ok(TokenRecord {
        id: id_of(token).unwrap_or_default().to_owned(),
        name: name.to_owned(),
        user: user.to_owned(),
        role: role.name().to_owned(),
        hash: hash.to_string(),
        created_at_ms: now_ms,
        expires_at_ms: None,
        revoked_at_ms: None,
        used_at_ms: None,
    })
}

fn new_token() -> anyhow::Result<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    Ok(format!("lw_{}_{}", hex(&random::<4>()?), hex(&random::<32>()?)))
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("getting random bytes: {e}"))?;
    Ok(bytes)
}

/// The part of a token by which it is found; `None` if the text has not the shape of a token with enough secret in it.
fn id_of(token: &str) -> Option<&str> {
    let (id, secret) = token.strip_prefix("lw_")?.split_once('_')?;
    (!id.is_empty() && secret.len() >= SECRET_CHARS_MIN).then_some(id)
}

/// The shortest secret part of a token.
const SECRET_CHARS_MIN: usize = 32;

fn matches_hash(token: &str, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(token.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Sqlite;

    #[tokio::test]
    async fn only_the_whole_token_opens_and_the_database_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
        ensure_admin_token(&db, dir.path(), 1).unwrap();
        let token = std::fs::read_to_string(dir.path().join("admin.token")).unwrap().trim().to_owned();
        let tokens = Tokens::new(db.users().unwrap(), db.tokens().unwrap());
        for wrong in [
            "",
            "lw_",
            &token[..token.len() - 1],
            &format!("{token}0"),
            &token.replace("lw_", "lw_0"),
            &"x".repeat(999),
        ] {
            assert_eq!(tokens.verify(wrong, 2).await, Err(TokenRefusal::Unknown), "{wrong}");
        }
        for _ in 0..2 {
            let caller = tokens.verify(&token, 2).await.unwrap();
            assert_eq!(
                (caller.name.as_str(), caller.token.as_str(), caller.role),
                ("admin", "admin", Role::Admin)
            );
        }
        let kept = &db.tokens().unwrap()[0];
        assert!(kept.hash.starts_with("$argon2id$") && !kept.hash.contains(&token));
    }

    #[test]
    fn a_token_file_that_was_moved_away_is_not_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
        let file = dir.path().join("admin.token");
        ensure_admin_token(&db, dir.path(), 1).unwrap();
        std::fs::remove_file(&file).unwrap();
        ensure_admin_token(&db, dir.path(), 2).unwrap();
        assert!(!file.exists());
        std::fs::write(&file, "not a token\n").unwrap();
        assert!(
            ensure_admin_token(&db, dir.path(), 3).unwrap_err().to_string().contains("does not hold a token")
        );
    }

    #[test]
    fn killed_between_the_file_and_the_database_the_token_works_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
        write_secret_file(&dir.path().join("admin.token"), &new_token().unwrap()).unwrap();
        ensure_admin_token(&db, dir.path(), 1).unwrap();
        assert_eq!(db.tokens().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn what_is_remembered_of_a_token_does_not_outlive_it() {
        let (record, token) = new_record("t", "anna", Role::Operator, 0, Some(100)).unwrap();
        let anna = UserRecord { name: "anna".into(), disabled: false, created_at_ms: 0 };
        let tokens = Tokens::new(vec![anna.clone()], vec![record.clone()]);
        assert_eq!(tokens.verify(&token, 99).await.unwrap().role, Role::Operator);
        assert_eq!(tokens.list()[0].used_at_ms, Some(99));
        assert_eq!(tokens.verify(&token, 100).await, Err(TokenRefusal::Expired));
        tokens.on_written(&Entry::User(UserRecord { disabled: true, ..anna.clone() }));
        assert_eq!(tokens.verify(&token, 99).await, Err(TokenRefusal::Disabled));
        tokens.on_written(&Entry::User(anna));
        assert!(tokens.is_open(&record.id, 99));
        tokens.on_written(&Entry::Token(TokenRecord { revoked_at_ms: Some(50), ..record.clone() }));
        assert_eq!(tokens.verify(&token, 99).await, Err(TokenRefusal::Revoked));
        assert!(!tokens.is_open(&record.id, 99));
        assert_eq!(tokens.take_used(), [(record.id, 99)]);
    }

    #[test]
    fn a_revoked_admin_token_stays_revoked_and_a_start_without_the_file_makes_another() {
        let dir = tempfile::tempdir().unwrap();
        let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
        ensure_admin_token(&db, dir.path(), 1).unwrap();
        let revoked = TokenRecord { revoked_at_ms: Some(2), ..db.tokens().unwrap().remove(0) };
        db.commit_with(&[], &[Entry::Token(revoked)]).unwrap();
        ensure_admin_token(&db, dir.path(), 3).unwrap();
        assert_eq!(db.tokens().unwrap()[0].revoked_at_ms, Some(2));
        std::fs::remove_file(dir.path().join("admin.token")).unwrap();
        ensure_admin_token(&db, dir.path(), 4).unwrap();
        assert_eq!(db.tokens().unwrap().iter().filter(|token| token.is_valid(5)).count(), 1);
    }
}
