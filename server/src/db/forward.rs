//! Security goes forward only: what a restored database takes along from the one that it replaces. What was shut since the backup stays shut, as
//! far as the replaced database says so by itself.
//!
//! | since the backup          | taken along                                        | from                        |
//! |---------------------------|----------------------------------------------------|-----------------------------|
//! | a token was revoked       | it stays revoked                                   | any database that knows it  |
//! | a user was disabled       | it stays disabled                                  | a later state of the backup |
//! | a user was removed        | it is there, and disabled                          | a later state of the backup |
//! | an agent's secret changed | the agent's secrets, so it can connect and a retired one stays retired | a later state of the backup |
//!
//! A revocation is never undone, so every one that is known is true. Of the others only a later state of the very same database knows: one that was
//! restored from an older backup says nothing of who was disabled or removed after that.

use super::map::{self, Bad, TOKEN_COLUMNS, signed};
use super::sqlite::{meta, rows};
use super::{DbError, TokenRecord, UserRecord, copy, schema};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Key of table `meta`: the commit of the backup from which this database was restored.
const RESTORED_COMMIT: &str = "restored_commit";

/// What a database says of who may do what.
#[derive(Clone, PartialEq, Eq)]
pub struct Forward {
    database_id: [u8; 16],
    commit: u64,
    /// The database from whose backup it was restored, and that backup's commit.
    restored_from: Option<([u8; 16], u64)>,
    revoked: Vec<TokenRecord>,
    users: Vec<UserRecord>,
    agents: BTreeMap<AgentKey, Secrets>,
}

impl std::fmt::Debug for Forward {
    /// Secrets are in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").field("commit", &self.commit).finish_non_exhaustive()
    }
}

/// An agent's name, and when it was added: another one may have got the name.
type AgentKey = (String, i64);
type Secrets = BTreeSet<(i64, Vec<u8>)>;

/// What was taken along, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Carried {
    /// Tokens that stay revoked.
    pub revoked: Vec<String>,
    /// Users that stay disabled, or were removed and are disabled now.
    pub disabled: Vec<String>,
    /// Agents that keep the secrets that they have now.
    pub secrets: Vec<String>,
}

/// Reads that, from a database that may be in use.
pub fn forward(path: &Path) -> Result<Forward, DbError> {
    Ok(copy::open_to_read(path).map_err(Bad::Sql).and_then(|c| read(&c))?)
}

fn read(c: &Connection) -> Result<Forward, Bad> {
    let moment = c.unchecked_transaction()?;
    let (database_id, _, commit) = schema::read_meta(&moment).map_err(|e| Bad::Content(e.to_string()))?;
    let ancestors: Option<Vec<u8>> = moment
        .query_row("SELECT value FROM meta WHERE key = ?1", [super::restored::ANCESTORS], |row| row.get(0))
        .optional()?;
    let parent = ancestors.and_then(|ids| ids.first_chunk().copied());
    let tokens = format!("SELECT {TOKEN_COLUMNS} FROM tokens WHERE revoked_at IS NOT NULL ORDER BY name, id");
    Ok(Forward {
        database_id,
        commit,
        restored_from: parent.zip(meta(&moment, RESTORED_COMMIT)?),
        revoked: rows(&moment, &tokens, [], map::token)?,
        users: users(&moment)?,
        agents: agents(&moment)?,
    })
}

fn users(c: &Connection) -> Result<Vec<UserRecord>, Bad> {
    rows(c, "SELECT name, disabled, created_at FROM users ORDER BY name", [], map::user)
}

fn agents(c: &Connection) -> Result<BTreeMap<AgentKey, Secrets>, Bad> {
    let sql = "SELECT name, added_at, number, secret FROM agents JOIN secrets ON agent = name";
    let mut agents: BTreeMap<AgentKey, Secrets> = BTreeMap::new();
    for (key, secret) in rows(c, sql, [], |row| Ok(((row.get(0)?, row.get(1)?), (row.get(2)?, row.get(3)?))))?
    {
        agents.entry(key).or_default().insert(secret);
    }
    Ok(agents)
}

impl Forward {
    /// Writes it into the copy of a backup whose id and commit these are, and leaves a note of that commit.
    pub(super) fn write(&self, c: &Connection, id: [u8; 16], commit: u64) -> Result<Carried, Bad> {
        let mut carried = Carried::default();
        for TokenRecord { id, hash, revoked_at_ms, name, user, .. } in &self.revoked {
            let sql = "UPDATE tokens SET revoked_at = ?3 WHERE id = ?1 AND hash = ?2 AND revoked_at IS NULL";
            if c.execute(sql, params![id, hash, revoked_at_ms])? > 0 {
                carried.revoked.push(token_text(name, user));
            }
        }
        if !self.is_later_than(id, commit) {
            return Ok(carried);
        }
        for user in users(c)?.into_iter().filter(|user| !user.disabled && self.has_shut_out(&user.name)) {
            c.execute("UPDATE users SET disabled = 1 WHERE name = ?1", [&user.name])?;
            carried.disabled.push(user.name);
        }
        for (key, old) in agents(c)? {
            let Some(new) = self.agents.get(&key).filter(|new| **new != old) else { continue };
            let (name, _) = key;
            c.execute("DELETE FROM secrets WHERE agent = ?1", [&name])?;
            for (number, secret) in new {
                c.execute("INSERT INTO secrets VALUES (?1, ?2, ?3)", params![name, number, secret])?;
            }
            carried.secrets.push(name);
        }
        Ok(carried)
    }

    /// Whether everything in the backup was in this database once.
    fn is_later_than(&self, id: [u8; 16], commit: u64) -> bool {
        let known = |(of, up_to): ([u8; 16], u64)| of == id && commit <= up_to;
        known((self.database_id, self.commit)) || self.restored_from.is_some_and(known)
    }

    fn has_shut_out(&self, name: &str) -> bool {
        self.users.iter().find(|user| user.name == name).is_none_or(|user| user.disabled)
    }
}

/// Notes from which commit the database was restored.
pub(super) fn note_commit(c: &Connection, commit: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO meta VALUES (?1, ?2)";
    c.execute(sql, params![RESTORED_COMMIT, signed(commit)]).map(drop)
}

/// The tokens that are not revoked, of users that are not disabled.
pub fn open_tokens(path: &Path) -> Result<Vec<String>, DbError> {
    let sql = "SELECT tokens.name, tokens.user FROM tokens JOIN users ON users.name = tokens.user \
               WHERE tokens.revoked_at IS NULL AND NOT users.disabled ORDER BY 1, 2";
    let text = |row: &rusqlite::Row<'_>| Ok(token_text(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?));
    Ok(copy::open_to_read(path).map_err(Bad::Sql).and_then(|c| rows(&c, sql, [], text))?)
}

/// A token as people know it.
pub(super) fn token_text(name: &str, user: &str) -> String {
    if name == user { name.to_owned() } else { format!("{name} of {user}") }
}
