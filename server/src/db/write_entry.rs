//! Writes what is stored beside the engine's changes.

use super::map::{reply_text, signed};
use super::{AnswerRecord, AuditRecord, Entry, TokenRecord, UserRecord, files};
use rusqlite::{Connection, params};

pub(super) fn write(c: &Connection, entry: &Entry) -> rusqlite::Result<()> {
    match entry {
        Entry::Audit(record) => insert_audit(c, record),
        Entry::User(user) => put_user(c, user),
        Entry::UserRemoved(name) => c.execute("DELETE FROM users WHERE name = ?1", [name]).map(drop),
        Entry::Token(token) => put_token(c, token),
        Entry::TokenUsed(id, at_ms) => {
            c.execute("UPDATE tokens SET used_at = ?2 WHERE id = ?1", params![id, at_ms]).map(drop)
        }
        Entry::Answered(answer) => insert_answer(c, answer),
        Entry::File(change) => files::write(c, change),
    }
}

fn insert_audit(c: &Connection, record: &AuditRecord) -> rusqlite::Result<()> {
    c.prepare_cached(
        "INSERT INTO audit (number, at, user, token, role, origin, via, action, object, detail, reason, refusal) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        signed(record.number),
        record.at_ms,
        record.user,
        record.token,
        record.role,
        record.from,
        record.via,
        record.action,
        record.object,
        serde_json::to_string(&record.detail).unwrap_or_default(),
        record.reason,
        record.refusal,
    ])
    .map(drop)
}

fn put_user(c: &Connection, user: &UserRecord) -> rusqlite::Result<()> {
    let UserRecord { name, disabled, created_at_ms } = user;
    c.execute("INSERT OR REPLACE INTO users VALUES (?1, ?2, ?3)", params![name, disabled, created_at_ms])
        .map(drop)
}

fn put_token(c: &Connection, token: &TokenRecord) -> rusqlite::Result<()> {
    c.execute(
        "INSERT OR REPLACE INTO tokens (id, name, role, hash, created_at, user, expires_at, revoked_at, used_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            token.id,
            token.name,
            token.role,
            token.hash,
            token.created_at_ms,
            token.user,
            token.expires_at_ms,
            token.revoked_at_ms,
            token.used_at_ms,
        ],
    )
    .map(drop)
}

fn insert_answer(c: &Connection, answer: &AnswerRecord) -> rusqlite::Result<()> {
    let key = &answer.key;
    c.prepare_cached("INSERT INTO answers VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING")?
        .execute(params![key.user, key.key, key.part, answer.digest, reply_text(&answer.reply), answer.at_ms])
        .map(drop)
}
