//! Bearer tokens: `lw_<id>_<secret>`. The database has argon2 of the secret; what was verified once is remembered by its SHA-256,
//! so that only the first request with a token is expensive.

use crate::db::{Database, DbError, TokenRecord};
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// What a token may do; the later, the more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May look.
    Viewer,
    /// May submit, kill, hold.
    Operator,
    /// May everything.
    Admin,
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// Checks tokens; cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    shared: Arc<Shared>,
}

struct Shared {
    by_id: HashMap<String, TokenRecord>,
    verified: Mutex<HashMap<[u8; 32], Caller>>,
    /// argon2 costs 19 MiB and some milliseconds: only so many at once.
    workers: Semaphore,
}

/// How many tokens are verified at the same time.
const VERIFIERS_MAX: usize = 2;
/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 256;

impl Tokens {
    /// Reads every token of the database.
    pub fn load(database: &dyn Database) -> Result<Tokens, DbError> {
        let by_id = database.tokens()?.into_iter().map(|token| (token.id.clone(), token)).collect();
        let shared = Shared { by_id, verified: Mutex::default(), workers: Semaphore::new(VERIFIERS_MAX) };
        Ok(Tokens { shared: Arc::new(shared) })
    }

    /// Whose token it is; `None` if nobody's.
    pub async fn verify(&self, bearer: &str) -> Option<Caller> {
        if bearer.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(bearer.as_bytes()).into();
        if let Some(caller) = self.remembered(&digest) {
            return Some(caller);
        }
        let record = self.shared.by_id.get(id_of(bearer)?)?.clone();
        let caller = Caller { name: record.name.clone(), role: role(&record.role)? };
        let _permit = self.shared.workers.acquire().await.ok()?;
        if let Some(caller) = self.remembered(&digest) {
            return Some(caller); // somebody else asked with it meanwhile
        }
        let bearer = bearer.to_owned();
        let matches = tokio::task::spawn_blocking(move || matches_hash(&bearer, &record.hash)).await;
        if !matches.unwrap_or(false) {
            return None;
        }
        let mut verified = self.shared.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.insert(digest, caller.clone());
        Some(caller)
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Caller> {
        self.shared.verified.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }
}

/// Sees to it that `<data_root>/admin.token` has a token that works. A file that is there is kept, and its token made valid if it is not
/// (somebody put it there, or the database was created anew).
pub fn ensure_admin_token(database: &dyn Database, data_root: &Path, now_ms: i64) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let path = data_root.join("admin.token");
    let token = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let tokens = database.tokens()?;
            if tokens.iter().any(|token| token.role == "admin") {
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
    if known.is_some_and(|record| matches_hash(&token, &record.hash)) {
        return Ok(());
    }
    put(database, &token, now_ms)
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

fn put(database: &dyn Database, token: &str, now_ms: i64) -> anyhow::Result<()> {
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(|e| anyhow::anyhow!("making a salt: {e}"))?;
    let hash = Argon2::default()
        .hash_password(token.as_bytes(), &salt)
        .map_err(|e| anyhow::anyhow!("hashing the admin token: {e}"))?;
    let id = id_of(token).unwrap_or_default().to_owned();
    let record = TokenRecord {
        id,
        name: "admin".to_owned(),
        role: "admin".to_owned(),
        hash: hash.to_string(),
        created_at_ms: now_ms,
    };
    Ok(database.put_token(&record)?)
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

fn role(name: &str) -> Option<Role> {
    match name {
        "viewer" => Some(Role::Viewer),
        "operator" => Some(Role::Operator),
        "admin" => Some(Role::Admin),
        _ => None,
    }
}

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
        let tokens = Tokens::load(&db).unwrap();
        for wrong in [
            "",
            "lw_",
            &token[..token.len() - 1],
            &format!("{token}0"),
            &token.replace("lw_", "lw_0"),
            &"x".repeat(999),
        ] {
            assert_eq!(tokens.verify(wrong).await, None, "{wrong}");
        }
        for _ in 0..2 {
            assert_eq!(tokens.verify(&token).await, Some(Caller { name: "admin".into(), role: Role::Admin }));
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
}
