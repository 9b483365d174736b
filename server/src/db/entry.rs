//! What is stored beside the engine's changes and in the same transaction: who asked for them, who may ask, what was answered.

use super::FileChange;
use scheduler::{Object, Reply};
use serde_json::{Map, Value};

/// One thing to store.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// Somebody asked for something, and what came of it.
    Audit(AuditRecord),
    /// A new or changed user.
    User(UserRecord),
    /// A user is gone.
    UserRemoved(String),
    /// A new or changed token.
    Token(TokenRecord),
    /// A token was used (first) at that wall-clock moment, milliseconds (second).
    TokenUsed(String, i64),
    /// A command that must not be carried out twice was.
    Answered(AnswerRecord),
    /// Something became of a file that was kept of a job, or of the file store.
    File(FileChange),
}

/// A user of the API: the name that owns tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// The name.
    pub name: String,
    /// None of its tokens opens anything.
    pub disabled: bool,
    /// When it was made, wall clock.
    pub created_at_ms: i64,
}

/// A token of the API: its secret part is only there as a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// The part by which it is found.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Whose it is.
    pub user: String,
    /// What it may do: `viewer`, `operator` or `admin`.
    pub role: String,
    /// argon2 in PHC form.
    pub hash: String,
    /// When it was made, wall clock.
    pub created_at_ms: i64,
    /// From then on it opens nothing, wall clock.
    pub expires_at_ms: Option<i64>,
    /// When it was revoked, wall clock. It stays on record, so that nothing makes it valid again.
    pub revoked_at_ms: Option<i64>,
    /// When it was last used, wall clock; written about once a minute.
    pub used_at_ms: Option<i64>,
}

impl TokenRecord {
    /// Neither revoked nor expired.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        self.revoked_at_ms.is_none() && self.expires_at_ms.is_none_or(|at| now_ms < at)
    }
}

/// Who asked for what, when, from where, why, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// Counts from 1, without a gap.
    pub number: u64,
    /// When, the server's wall clock.
    pub at_ms: i64,
    /// The user.
    pub user: String,
    /// The name of the user's token.
    pub token: String,
    /// What the token may do.
    pub role: String,
    /// The address it came from.
    pub from: String,
    /// The program it came by.
    pub via: String,
    /// What was asked for: `queue.hold`.
    pub action: String,
    /// To what it was to be done: `queue/nightly`.
    pub object: String,
    /// What was asked for in particular, and what was there before.
    pub detail: Map<String, Value>,
    /// Why, in the words of whoever asked.
    pub reason: Option<String>,
    /// Why it was not done; absent if it was.
    pub refusal: Option<String>,
}

/// A selection of audit entries. What is absent selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// By this user or token.
    pub who: Option<String>,
    /// To this object.
    pub object: Option<String>,
    /// Not before this moment, wall clock.
    pub since_ms: Option<i64>,
}

impl AuditFilter {
    /// Whether the entry is among them.
    pub fn takes(&self, record: &AuditRecord) -> bool {
        self.who.as_ref().is_none_or(|who| *who == record.user || *who == record.token)
            && self.object.as_ref().is_none_or(|object| is_part_of(object, &record.object))
            && self.since_ms.is_none_or(|since| record.at_ms >= since)
    }
}

/// Whether the object is the one that was asked for; a job is part of the batch with which it came.
fn is_part_of(wanted: &str, object: &str) -> bool {
    let numbers = object.strip_prefix("job/").and_then(|numbers| numbers.split_once('-'));
    match (wanted.parse::<Object>(), numbers) {
        (Ok(Object::Job(job)), Some((first, last))) => match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) => (first..=last).contains(&job.0),
            (_, Err(_)) | (Err(_), _) => false,
        },
        (_, _) => wanted == object,
    }
}

/// Which command of which order: a request with an idempotency key may be several commands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AnswerKey {
    /// Whose key it is.
    pub user: String,
    /// The key.
    pub key: String,
    /// The number of the command, from 0.
    pub part: u32,
}

/// What a command was answered that must not be carried out twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerRecord {
    /// Which command.
    pub key: AnswerKey,
    /// SHA-256 of the request.
    pub digest: [u8; 32],
    /// What it was answered.
    pub reply: Reply,
    /// When, wall clock.
    pub at_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_found_by_itself_and_in_the_batch_with_which_it_came() {
        for (wanted, object, found) in [
            ("job/5", "job/5", true),
            ("job/5", "job/1-9", true),
            ("job/10", "job/1-9", false),
            ("queue/q", "queue/q", true),
            ("queue/q", "queue/q2", false),
            ("job/1-9", "job/1-9", true),
        ] {
            assert_eq!(is_part_of(wanted, object), found, "{wanted} {object}");
        }
    }
}
