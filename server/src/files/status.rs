//! The file store as the rest of the server sees it.

use super::store::Opened;
use super::{Context, StoreError, key};
use crate::db::{FileChange, FileRecord, Place, StoreClaim};
use axum::body::Bytes;
use scheduler::{Event, EventKind, Object};
use std::ops::Range;

/// The file store; cheap to clone. There may be none: then files stay with their agents.
#[derive(Clone, Default)]
pub struct Files(Option<Context>);

impl Files {
    pub(crate) fn new(context: Option<Context>) -> Files {
        Files(context)
    }

    /// Where it is, if there is one.
    pub fn url(&self) -> Option<String> {
        self.0.as_ref().map(|context| context.store.url())
    }

    /// What is wrong with it, if something is. Nothing else of the server suffers from it.
    pub fn trouble(&self) -> Option<String> {
        self.0.as_ref().and_then(|context| context.store.trouble())
    }

    /// Bytes of a stored file; all that were asked for.
    pub async fn read(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let none = || StoreError::Away("this server has none ([files] url is empty)".to_owned());
        let context = self.0.as_ref().ok_or_else(none)?;
        context.opened().await?.read(key, range).await
    }

    /// The store does not have what the record says it has. If it is our store, the record is put right.
    pub(crate) async fn on_missing(&self, record: &FileRecord) {
        let Some(context) = &self.0 else { return };
        if context.ready().await.is_ok() {
            context.missing(std::slice::from_ref(record), "it was to be read").await;
        }
    }
}

impl Context {
    /// The store, open and ours as it was when it was opened.
    pub(super) async fn opened(&self) -> Result<Opened, StoreError> {
        self.store.opened(|opened| self.claim(opened)).await
    }

    /// The store, and it is ours at this moment: for whoever is going to write, to delete, or to believe that something is not there.
    pub(super) async fn ready(&self) -> Result<Opened, StoreError> {
        let opened = self.opened().await?;
        if let Err(error) = self.check_mark(&opened).await {
            self.store.close().await;
            return Err(error);
        }
        Ok(opened)
    }

    /// Marks a new store, or finds our mark. Two servers in one folder would remove each other's files; an empty mount point looks like a store that
    /// lost everything, and so does a new address to which nobody has moved the files.
    async fn claim(&self, opened: Opened) -> Result<(), StoreError> {
        let url = self.store.url();
        let claim = self.store_claim().await?;
        let counts = self.ask(|db| db.file_counts()).await.map_err(|e| StoreError::Away(e.to_string()))?;
        let is_new = match &claim.url {
            None => true,
            Some(known) => *known != url && counts[Place::Stored as usize].files == 0,
        };
        if is_new && opened.read_small(key::MARK).await == Err(StoreError::Missing) {
            opened.put(key::MARK, key::hex(&claim.id).into_bytes()).await?;
            tracing::info!("the file store {url} is marked as this server's");
        }
        self.check_mark(&opened).await?;
        if claim.url.as_ref() != Some(&url) {
            let changes = vec![FileChange::Claimed(url)];
            self.handle.files(changes, Vec::new()).await.map_err(|e| StoreError::Away(e.to_string()))?;
        }
        Ok(())
    }

    async fn store_claim(&self) -> Result<StoreClaim, StoreError> {
        self.ask(|db| db.store_claim()).await.map_err(|e| StoreError::Away(e.to_string()))
    }

    async fn check_mark(&self, opened: &Opened) -> Result<(), StoreError> {
        let (claim, url, mark) = (self.store_claim().await?, self.store.url(), key::MARK);
        let ours = key::hex(&claim.id);
        match opened.read_small(mark).await {
            Ok(found) if found.trim_ascii() == ours.as_bytes() => Ok(()),
            Ok(_) => Err(StoreError::Away(format!(
                "{url} has the mark of another server ({mark}): give each server a store of its own; this one's mark is {ours}"
            ))),
            Err(StoreError::Missing) => Err(StoreError::Away(match claim.url {
                Some(known) if known != url => format!(
                    "{url} lacks this server's mark, and stored files are in {known}: move them there, {mark} with them"
                ),
                Some(_) | None => format!(
                    "{url} lacks this server's mark: is it mounted? If it was emptied on purpose, put a file {mark} with the text {ours} there"
                ),
            })),
            Err(error) => Err(error),
        }
    }

    /// The store cannot be used: told once, and tried again.
    pub(super) async fn on_trouble(&self, error: &StoreError) {
        let text = error.to_string();
        self.store.close().await; // opened anew next time: a rotated key, a folder that was mounted again
        metrics::gauge!("lastword_file_store_up").set(0.0);
        metrics::counter!("lastword_file_store_failures_total").increment(1);
        if !self.store.set_trouble(Some(text.clone())) {
            tracing::warn!("{text}; files stay with their agents, and it is tried again");
            self.tell(Event::new(EventKind::FileStoreAway, Object::Server, text)).await;
        }
    }

    /// The store did what it was asked.
    pub(super) async fn on_well(&self) {
        metrics::gauge!("lastword_file_store_up").set(1.0);
        if self.store.set_trouble(None) {
            let text = format!("the file store {} can be used again", self.store.url());
            tracing::info!("{text}");
            self.tell(Event::new(EventKind::FileStoreBack, Object::Server, text)).await;
        }
    }

    /// While the database cannot be written the inbox may be full: nobody here waits for that.
    async fn tell(&self, event: Event) {
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.happened(event).await });
    }

    /// The store lacks files: they are fetched again.
    pub(super) async fn missing(&self, records: &[FileRecord], when: &str) {
        let (mut changes, mut events) = (Vec::new(), Vec::new());
        for record in records {
            let file = &record.file;
            let reason = format!("the file store does not have it any more ({when})");
            tracing::warn!(job = %file.job, file = file.name, "{reason}");
            let text = format!("file \"{}\": {reason}", file.name);
            events.push(event_of(record, EventKind::FileMissing, text));
            let (run, name, at_ms) = (file.run, file.name.clone(), os::clock::wall_ms());
            changes.push(FileChange::Missing { run, name, reason, at_ms });
        }
        if let Err(e) = self.handle.files(changes, events).await {
            tracing::warn!("that files are missing is not written down yet: {e}");
        }
    }
}

/// An event about a file.
pub(super) fn event_of(record: &FileRecord, kind: EventKind, text: String) -> Event {
    let file = &record.file;
    let data = serde_json::json!({"file": file.name, "bytes": file.bytes, "sha256": key::hex(&file.sha256),
        "run_id": file.run.to_string(), "agent": file.agent, "reason": record.reason});
    let event = Event::new(kind, Object::Job(file.job), text).with(data);
    match &record.queue {
        Some(queue) => event.in_queue(queue),
        None => event,
    }
}
