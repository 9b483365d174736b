//! One object on its way into the store: a small one in one piece, a greater one in parts. Nothing of it is visible before [`Upload::finish`].

use super::store::{Opened, StoreError};
use object_store::MultipartUpload;

/// A part of a great object, and the greatest that is put there in one piece. Buckets want parts of 5 MiB at least, and all of one size.
const PART_BYTES: usize = 8 << 20;

/// An object that is being written. Dropped without [`Upload::finish`] or [`Upload::abort`] it leaves what a crash would.
pub(super) struct Upload {
    store: Opened,
    key: String,
    buffer: Vec<u8>,
    parts: Option<Box<dyn MultipartUpload>>,
}

impl Upload {
    pub(super) fn new(store: Opened, key: &str) -> Upload {
        Upload { store, key: key.to_owned(), buffer: Vec::new(), parts: None }
    }

    /// Takes the next bytes.
    pub(super) async fn write(&mut self, mut piece: &[u8]) -> Result<(), StoreError> {
        while !piece.is_empty() {
            let room = PART_BYTES - self.buffer.len();
            let (now, later) = piece.split_at(piece.len().min(room));
            self.buffer.extend_from_slice(now);
            piece = later;
            if self.buffer.len() == PART_BYTES && !piece.is_empty() {
                self.part().await?;
            }
        }
        Ok(())
    }

    async fn part(&mut self) -> Result<(), StoreError> {
        if self.parts.is_none() {
            self.parts = Some(self.store.begin_parts(&self.key).await?);
        }
        let part = std::mem::take(&mut self.buffer);
        match &mut self.parts {
            Some(parts) => self.store.operate(parts.put_part(part.into())).await,
            None => Ok(()), // it was just begun
        }
    }

    /// Afterwards the object is there, whole and durable.
    pub(super) async fn finish(mut self) -> Result<(), StoreError> {
        if self.parts.is_none() {
            return self.store.put(&self.key, self.buffer).await;
        }
        self.part().await?;
        os::crash::point("files.before-complete");
        match self.parts.take() {
            Some(mut parts) => self.store.operate(async move { parts.complete().await }).await.map(drop),
            None => Ok(()),
        }
    }

    /// Nothing of it stays, as far as the store can be reached.
    pub(super) async fn abort(mut self) {
        if let Some(mut parts) = self.parts.take()
            && let Err(e) = self.store.operate(async move { parts.abort().await }).await
        {
            tracing::debug!(key = self.key, "parts of an object stay in the file store: {e}");
        }
    }
}
