//! A look through the whole store, at the start and once a day: what is in it and in no record, what is in the record and not in it, what was left half
//! written.
//!
//! Nothing is concluded from a list that broke off, or from a store that is not ours at its end as at its beginning. Objects are deleted only when
//! they are old, and never while a restore is going on: a restored record does not know what was stored after its backup, and the agents are
//! just telling.

use super::tidy::Failure;
use super::{Context, key, store};
use crate::db::{FileRecord, Place};
use job::RunId;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// Objects that are compared with the record at once.
const CHUNK: usize = 500;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    orphans: u64,
    taken: u64,
    missing: u64,
    halves: u64,
}

/// What a list has that the record has not as stored.
#[derive(Default)]
struct Compared {
    /// Objects that nothing names, and when they were written.
    orphans: Vec<(String, i64)>,
    /// Files that are awaited, or lost, and that are here: put here by a server that died before it could say so, or brought back by somebody.
    found: Vec<FileRecord>,
}

impl Context {
    /// One look. `orphans_age`: so old are objects that nothing names when they go.
    pub(super) async fn look_through(&self, orphans_age: Duration) -> Result<(), Failure> {
        let (began_ms, aged_ms) = (os::clock::wall_ms(), os::clock::aging_ms());
        let store = self.ready().await?;
        let mut found = Found { halves: self.remove_halves().await?, ..Found::default() };
        let orphans_age_ms = i64::try_from(orphans_age.as_millis()).unwrap_or(i64::MAX);
        let may_delete = self.handle.recovery().await?.is_none();
        let (mut list, mut keys, mut chunk) = (store.list(), HashSet::new(), Vec::new());
        let mut compared = Compared::default();
        loop {
            let next = list.recv().await.transpose()?;
            let is_end = next.is_none();
            if let Some(object) = next {
                keys.insert(digest(&object.key));
                chunk.push(object);
            }
            if chunk.len() == CHUNK || is_end {
                let Compared { orphans, found } = self.compare(std::mem::take(&mut chunk)).await?;
                let is_old = |at: &(String, i64)| aged_ms.saturating_sub(at.1) >= orphans_age_ms;
                compared.orphans.extend(orphans.into_iter().filter(is_old));
                compared.found.extend(found);
            }
            if is_end {
                break;
            }
        }
        let store = self.ready().await?;
        for (orphan, _) in compared.orphans.iter().filter(|_| may_delete) {
            store.delete(orphan).await?;
            found.orphans += 1;
        }
        for record in &compared.found {
            found.taken += u64::from(self.take(&store, record).await?);
        }
        found.missing = self.find_missing(&keys, began_ms).await?;
        let Found { orphans, taken, missing, halves } = found;
        let objects = keys.len();
        tracing::info!(objects, orphans, taken, missing, halves, "the file store was looked through");
        Ok(())
    }

    /// What a server that was killed left behind.
    async fn remove_halves(&self) -> Result<u64, Failure> {
        let Some(folder) = self.store.folder().map(std::path::Path::to_owned) else { return Ok(0) };
        let started_at_ms = self.handle.status().await?.started_at_ms;
        let removed = tokio::task::spawn_blocking(move || store::remove_halves(&folder, started_at_ms)).await;
        Ok(removed.ok().and_then(Result::ok).unwrap_or(0))
    }

    /// Compares a piece of the list with the record. What is no key of ours is let alone.
    async fn compare(&self, objects: Vec<store::Listed>) -> Result<Compared, Failure> {
        let mut compared = Compared::default();
        let mut of_run: (Option<RunId>, Vec<FileRecord>) = (None, Vec::new());
        for object in objects {
            let Some((_, run)) = key::read(&object.key) else { continue };
            if of_run.0 != Some(run) {
                of_run = (Some(run), self.ask(move |db| db.files(run)).await?);
            }
            let is_it = |record: &&FileRecord| {
                object.key == key::of(record.file.job, record.file.run, &record.file.name)
            };
            match of_run.1.iter().find(is_it).map(|record| (record.place, record)) {
                Some((Place::Stored, _)) => {}
                Some((Place::Agent | Place::Lost, record)) => compared.found.push(record.clone()),
                Some((Place::Removed, _)) | None => {
                    compared.orphans.push((object.key, object.written_at_ms));
                }
            }
        }
        Ok(compared)
    }

    /// Files that the record has as stored since before `began_ms`, and that were not listed.
    async fn find_missing(&self, keys: &HashSet<u64>, began_ms: i64) -> Result<u64, Failure> {
        let (mut missing, mut after) = (0, (RunId::new(0, 0), String::new()));
        loop {
            let from = after.clone();
            let piece = self.ask(move |db| db.files_stored_after(&from, CHUNK)).await?;
            let Some(last) = piece.last() else { return Ok(missing) };
            after = (last.file.run, last.file.name.clone());
            let is_missing = |record: &FileRecord| {
                record.at_ms < began_ms && record.key.as_ref().is_some_and(|key| !keys.contains(&digest(key)))
            };
            let lacking: Vec<FileRecord> = piece.into_iter().filter(is_missing).collect();
            missing += lacking.len() as u64;
            if !lacking.is_empty() {
                self.missing(&lacking, "the store was looked through").await;
            }
        }
    }
}

/// Keys of millions of objects, eight bytes each. Two that meet hide that one of them is missing, which its reader notices.
fn digest(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
