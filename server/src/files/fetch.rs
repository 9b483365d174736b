//! One file, from its agent into the store: its size and its hash are compared on the way, and it is there whole or not at all.

use super::status::event_of;
use super::store::{Opened, StoreError};
use super::{Context, key};
use crate::agents::{Output, QueryError, Wanted};
use crate::core::CoreError;
use crate::db::{FileChange, FileRecord};
use protocol::stream::Which;
use scheduler::{Event, EventKind};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// An agent that sends nothing for so long is tried again later.
const PIECE_MAX: Duration = Duration::from_secs(60);
/// Of an object that is there already so much is read at once.
const READ_BYTES: u64 = 4 << 20;
/// The first pause after a file could not be fetched, and the longest, milliseconds.
const PAUSE_MS_MIN: i64 = 1_000;
pub(super) const PAUSE_MS_MAX: i64 = 15 * 60_000;

/// What came of it.
#[derive(Debug)]
pub(super) enum Fetched {
    /// It is in the store, and on record.
    Stored,
    /// It is on record that it is not, or not yet.
    Noted,
    /// Its agent is not connected: nothing to be noted.
    AgentAway,
    /// The store cannot be used: nothing is wrong with the file.
    StoreAway(StoreError),
    /// The record cannot be written now, or the server stops.
    NotNoted(CoreError),
}

/// Why it is not in the store.
enum Failure {
    Agent(QueryError),
    Store(StoreError),
    /// It came, and is not what was kept.
    Differs(String),
    /// The store has no room for one so great.
    NoRoom(String),
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        Failure::Agent(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Store(error)
    }
}

impl Context {
    /// Fetches a file and writes down what came of it.
    pub(super) async fn fetch(&self, record: &FileRecord) -> Fetched {
        let fetched = self.try_fetch(record).await;
        let (change, event) = match fetched {
            Ok(key) => {
                os::crash::point("files.before-commit");
                stored(record, key)
            }
            Err(Failure::Agent(QueryError::Away(_))) => return Fetched::AgentAway,
            Err(Failure::Agent(QueryError::Stopping)) => {
                return Fetched::NotNoted(CoreError::Stopping);
            }
            Err(Failure::Agent(error @ QueryError::Gone { .. })) => lost(record, error.to_string()),
            Err(Failure::Agent(
                error @ (QueryError::TimedOut { .. }
                | QueryError::TooOld { .. }
                | QueryError::Crowded
                | QueryError::Failed { .. }),
            )) => (delayed(record, error.to_string()), None),
            Err(Failure::NoRoom(reason)) => (delayed(record, reason), None),
            Err(Failure::Differs(reason)) => lost(record, reason),
            Err(Failure::Store(error)) => return Fetched::StoreAway(error),
        };
        let is_stored = matches!(change, FileChange::Stored { .. });
        match self.handle.files(vec![change], event.into_iter().collect()).await {
            Err(error) => Fetched::NotNoted(error),
            Ok(()) if is_stored => {
                metrics::counter!("lastword_files_stored_total").increment(1);
                metrics::counter!("lastword_files_stored_bytes_total").increment(record.file.bytes);
                Fetched::Stored
            }
            Ok(()) => Fetched::Noted,
        }
    }

    /// Takes a file that is in the store already, without its agent; whether it is.
    pub(super) async fn take(
        &self,
        store: &Opened,
        record: &FileRecord,
    ) -> Result<bool, super::tidy::Failure> {
        let file = &record.file;
        let key = key::of(file.job, file.run, &file.name);
        let is_there = is_there(store, &key, record).await?;
        if is_there {
            let (change, event) = stored(record, key);
            self.handle.files(vec![change], event.into_iter().collect()).await?;
        }
        Ok(is_there)
    }

    /// Its key in the store.
    async fn try_fetch(&self, record: &FileRecord) -> Result<String, Failure> {
        let file = &record.file;
        let key = key::of(file.job, file.run, &file.name);
        let store = self.ready().await?;
        if is_there(&store, &key, record).await? {
            return Ok(key); // put there by one that died before it could say so, or that knew more than this record
        }
        if let Some(reason) = self.store.check_room(file.bytes).await? {
            return Err(Failure::NoRoom(reason));
        }
        let which = Which::Kept(file.name.clone());
        let wanted = Wanted { run: file.run, which, offset: 0, bytes_max: None, follow: false };
        let mut output = self.agents.output(&file.agent, wanted).await?;
        let mut upload = store.upload(&key);
        match receive(&mut output, &mut upload, record).await {
            Ok(()) => {
                upload.finish().await?;
                Ok(key)
            }
            Err(failure) => {
                upload.abort().await;
                Err(failure)
            }
        }
    }
}

/// Passes the bytes on while they come; an error if they are not those that were kept.
async fn receive(
    output: &mut Output,
    upload: &mut super::upload::Upload,
    record: &FileRecord,
) -> Result<(), Failure> {
    let file = &record.file;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    if output.size != file.bytes {
        return Err(differs(record, &format!("{} bytes", output.size)));
    }
    loop {
        let silent = |_| QueryError::TimedOut { agent: file.agent.clone(), seconds: PIECE_MAX.as_secs() };
        let Some(piece) = tokio::time::timeout(PIECE_MAX, output.next()).await.map_err(silent)? else {
            break;
        };
        let piece = piece?;
        bytes += piece.len() as u64;
        if bytes > file.bytes {
            break;
        }
        hash.update(&piece);
        upload.write(&piece).await?;
        os::crash::point("files.amid-upload");
    }
    if bytes > file.bytes {
        return Err(differs(record, &format!("more than {} bytes", file.bytes)));
    }
    if bytes < file.bytes {
        let reason = format!("its answer ended after {bytes} of {} bytes", file.bytes);
        return Err(QueryError::Failed { agent: file.agent.clone(), reason }.into());
    }
    let hash = hash.finalize();
    if hash[..] != file.sha256[..] {
        return Err(differs(record, &format!("the SHA-256 {}", key::hex(&hash))));
    }
    Ok(())
}

fn differs(record: &FileRecord, found: &str) -> Failure {
    let file = &record.file;
    Failure::Differs(format!(
        "agent \"{}\" kept {} bytes with the SHA-256 {}, and has {found} now: it changed on the agent's disk",
        file.agent,
        file.bytes,
        key::hex(&file.sha256)
    ))
}

/// Whether the store has it already, byte for byte.
async fn is_there(store: &Opened, key: &str, record: &FileRecord) -> Result<bool, StoreError> {
    let file = &record.file;
    match store.size(key).await {
        Ok(size) if size == file.bytes => {}
        Ok(_) | Err(StoreError::Missing) => return Ok(false),
        Err(error) => return Err(error),
    }
    let (mut hash, mut at) = (Sha256::new(), 0);
    while at < file.bytes {
        let end = file.bytes.min(at + READ_BYTES);
        hash.update(store.read(key, at..end).await?);
        at = end;
    }
    Ok(hash.finalize()[..] == file.sha256[..])
}

fn stored(record: &FileRecord, key: String) -> (FileChange, Option<Event>) {
    let file = &record.file;
    let text = format!("file \"{}\" of {} bytes is stored", file.name, file.bytes);
    let at_ms = os::clock::wall_ms();
    let change = FileChange::Stored { run: file.run, name: file.name.clone(), key, at_ms };
    (change, Some(event_of(record, EventKind::FileStored, text)))
}

fn lost(record: &FileRecord, reason: String) -> (FileChange, Option<Event>) {
    let file = &record.file;
    // Of one that was in the store once that it was is the greater part of the story.
    let reason = match record.at_ms {
        0 => reason,
        _ => format!("{}; {reason}", record.reason.as_deref().unwrap_or("it was stored once")),
    };
    let text = format!("file \"{}\" is lost: {reason}", file.name);
    tracing::warn!(job = %file.job, file = file.name, "a file that was kept is lost: {reason}");
    metrics::counter!("lastword_files_lost_total").increment(1);
    let record = FileRecord { reason: Some(reason.clone()), ..record.clone() };
    let event = event_of(&record, EventKind::FileLost, text);
    let at_ms = os::clock::wall_ms();
    (FileChange::Lost { run: file.run, name: file.name.clone(), reason, at_ms }, Some(event))
}

fn delayed(record: &FileRecord, reason: String) -> FileChange {
    let (file, tries) = (&record.file, record.tries.saturating_add(1));
    tracing::info!(job = %file.job, file = file.name, tries, "a file is not fetched yet: {reason}");
    let pause_ms = pause_ms(tries);
    FileChange::Delayed {
        run: file.run,
        name: file.name.clone(),
        reason,
        tries,
        next_at_ms: os::clock::wall_ms().saturating_add(pause_ms),
    }
}

/// After so many tries.
fn pause_ms(tries: u32) -> i64 {
    let doubled = tries.saturating_sub(1).min(PAUSE_DOUBLED_MAX);
    (PAUSE_MS_MIN << doubled).min(PAUSE_MS_MAX)
}

/// By then the longest pause is reached.
const PAUSE_DOUBLED_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_their_limit() {
        let pauses = [0, 1, 2, 3, 4, 30, 62, 63, 64, u32::MAX].map(pause_ms);
        assert_eq!(pauses[..5], [1_000, 1_000, 2_000, 4_000, 8_000]);
        assert!(pauses[5..].iter().all(|pause| *pause == PAUSE_MS_MAX), "{pauses:?}");
    }
}
