//! The store itself: whole objects under keys, in a folder or a bucket.
//!
//! Every operation has a limit on time and a place among [`OPERATIONS_MAX`]. One that hangs (a network file system) keeps its place until it really
//! ends, so that however often it is tried again, no more than so many threads ever wait for it.

use super::place::{Bucket, Place};
use super::upload::Upload;
use axum::body::Bytes;
use futures_util::StreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};

/// Operations at the same time.
const OPERATIONS_MAX: usize = 32;
/// How long one may take: a part of a file over a slow line, or a deletion.
const OPERATION_MAX: Duration = Duration::from_secs(150);
/// One request to a bucket.
#[cfg(feature = "s3")]
const REQUEST_MAX: Duration = Duration::from_secs(120);
/// To reach a bucket.
#[cfg(feature = "s3")]
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A request that a bucket answers with "later" is repeated so often, for so long; then it is for us to try again.
#[cfg(feature = "s3")]
const RETRIES_MAX: usize = 3;
#[cfg(feature = "s3")]
const RETRIES_FOR: Duration = Duration::from_secs(20);
/// A store that could not be opened is not tried again before this.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Listed objects that wait to be looked at.
const LISTED_WAITING_MAX: usize = 1_000;

/// Why the store did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("the file store does not have it")]
    Missing,
    /// It cannot be used now; later it may be.
    #[error("the file store cannot be used at the moment: {0}")]
    Away(String),
}

/// A store, open or not.
pub(crate) struct Store {
    place: Place,
    /// A folder's file system keeps so much free.
    free_bytes_min: u64,
    state: tokio::sync::Mutex<State>,
    operations: Arc<Semaphore>,
    trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct State {
    opened: Option<Opened>,
    failed: Option<(Instant, StoreError)>,
}

/// A store that is open, and known to be ours.
#[derive(Clone)]
pub(super) struct Opened {
    inner: Arc<dyn ObjectStore>,
    operations: Arc<Semaphore>,
}

/// An object of the store.
pub(super) struct Listed {
    pub(super) key: String,
    /// When it was written, the store's wall clock.
    pub(super) written_at_ms: i64,
}

impl Store {
    pub(crate) fn new(place: Place, free_bytes_min: u64) -> Store {
        let operations = Arc::new(Semaphore::new(OPERATIONS_MAX));
        Store {
            place,
            free_bytes_min,
            state: tokio::sync::Mutex::default(),
            operations,
            trouble: Mutex::default(),
        }
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        self.place.url()
    }

    /// The folder, if it is one.
    pub(super) fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder { path, .. } => Some(path),
            Place::Bucket(_) => None,
        }
    }

    /// What is wrong with it, if something is.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble_now().clone()
    }

    /// What is wrong with it now; whether there was something before.
    pub(super) fn set_trouble(&self, trouble: Option<String>) -> bool {
        std::mem::replace(&mut *self.trouble_now(), trouble).is_some()
    }

    fn trouble_now(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open store. `claim` sees to it that it is ours before anybody uses it.
    pub(super) async fn opened<F: Future<Output = Result<(), StoreError>>>(
        &self,
        claim: impl FnOnce(Opened) -> F,
    ) -> Result<Opened, StoreError> {
        let mut state = self.state.lock().await;
        if let Some(opened) = &state.opened {
            return Ok(opened.clone());
        }
        if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| at.elapsed() < REOPEN_PAUSE) {
            return Err(error.clone());
        }
        let opened = match self.open().await {
            Ok(opened) => claim(opened.clone()).await.map(|()| opened),
            Err(error) => Err(error),
        };
        match opened {
            Ok(opened) => {
                *state = State { opened: Some(opened.clone()), failed: None };
                Ok(opened)
            }
            Err(error) => {
                *state = State { opened: None, failed: Some((Instant::now(), error.clone())) };
                Err(error)
            }
        }
    }

    /// Something is wrong: the next one opens it anew, with the credentials as they are then.
    pub(super) async fn close(&self) {
        self.state.lock().await.opened = None;
    }

    async fn open(&self) -> Result<Opened, StoreError> {
        let operations = Arc::clone(&self.operations);
        let place = self.place.clone();
        let inner = within(&operations, async move {
            let opened = tokio::task::spawn_blocking(move || match &place {
                Place::Folder { path, own } => open_folder(path, *own),
                Place::Bucket(bucket) => open_bucket(bucket),
            });
            opened.await.map_err(|e| StoreError::Away(e.to_string()))?
        });
        Ok(Opened { inner: inner.await?, operations })
    }

    /// Whether a file of that size may be put there. An error if none may; a reason if only this one is too great.
    pub(super) async fn check_room(&self, bytes: u64) -> Result<Option<String>, StoreError> {
        let Some(path) = self.folder().map(Path::to_owned) else { return Ok(None) };
        let asked = path.clone();
        let free = within(&self.operations, async move {
            let asked = tokio::task::spawn_blocking(move || os::disk::file_system(&asked));
            let file_system = asked.await.map_err(|e| StoreError::Away(e.to_string()))?;
            file_system.map(|found| found.free_bytes).map_err(|e| StoreError::Away(e.to_string()))
        });
        let free = free.await?;
        let rule = format!(
            "{} has {} MiB free, of which [files] free_bytes_min keeps {} MiB free",
            path.display(),
            free >> 20,
            self.free_bytes_min >> 20
        );
        match free.checked_sub(self.free_bytes_min) {
            None => Err(StoreError::Away(rule)),
            Some(room) if room < bytes => {
                Ok(Some(format!("it has {bytes} bytes, and there is no room: {rule}")))
            }
            Some(_) => Ok(None),
        }
    }
}

fn open_folder(path: &Path, own: bool) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let away = |e: &dyn std::fmt::Display| StoreError::Away(format!("{}: {e}", path.display()));
    if own {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| away(&e))?;
    } else if !path.is_dir() {
        return Err(away(
            &"there is no such folder; is it mounted? A folder outside the data root is not made",
        ));
    }
    let folder = LocalFileSystem::new_with_prefix(path).map_err(|e| away(&e))?;
    Ok(Arc::new(folder.with_fsync(true).with_automatic_cleanup(true)))
}

#[cfg(feature = "s3")]
fn open_bucket(bucket: &Bucket) -> Result<Arc<dyn ObjectStore>, StoreError> {
    use super::credentials::Credentials;
    use object_store::aws::AmazonS3Builder;
    use object_store::prefix::PrefixStore;
    use object_store::{ClientOptions, RetryConfig};

    let Credentials { key, secret, token } = Credentials::load(bucket.credentials_file.as_deref())?;
    let client = ClientOptions::new().with_timeout(REQUEST_MAX).with_connect_timeout(CONNECT_MAX);
    let retry =
        RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRIES_FOR, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&bucket.name)
        .with_region(&bucket.region)
        .with_access_key_id(key)
        .with_secret_access_key(secret)
        .with_client_options(client)
        .with_disable_bulk_delete(true) // one at a time, which every provider knows
        .with_retry(retry);
    if let Some(token) = token {
        builder = builder.with_token(token);
    }
    if let Some(endpoint) = &bucket.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    let opened = builder.build().map_err(|e| StoreError::Away(e.to_string()))?;
    Ok(match bucket.prefix.as_str() {
        "" => Arc::new(opened),
        prefix => Arc::new(PrefixStore::new(opened, prefix)),
    })
}

#[cfg(not(feature = "s3"))]
fn open_bucket(_bucket: &Bucket) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Err(StoreError::Away("this program was built without S3".to_owned()))
}

impl Opened {
    /// Bytes of an object. Fewer than were asked for are an error, so that nobody takes a part for the whole.
    pub(super) async fn read(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (inner, key, wanted) = (Arc::clone(&self.inner), Key::from(key), range.end - range.start);
        let bytes = self.operate(async move { inner.get_range(&key, range).await }).await?;
        match bytes.len() as u64 == wanted {
            true => Ok(bytes),
            false => Err(StoreError::Away(format!("it gave {} bytes of {wanted}", bytes.len()))),
        }
    }

    /// A small object, whole.
    pub(super) async fn read_small(&self, key: &str) -> Result<Bytes, StoreError> {
        let (inner, key) = (Arc::clone(&self.inner), Key::from(key));
        self.operate(async move { inner.get(&key).await?.bytes().await }).await
    }

    /// The size of an object.
    pub(super) async fn size(&self, key: &str) -> Result<u64, StoreError> {
        let (inner, key) = (Arc::clone(&self.inner), Key::from(key));
        Ok(self.operate(async move { inner.head(&key).await }).await?.size)
    }

    /// Puts an object there in one piece; durable when it returns, and never visible in part.
    pub(super) async fn put(&self, key: &str, content: Vec<u8>) -> Result<(), StoreError> {
        let (inner, key) = (Arc::clone(&self.inner), Key::from(key));
        let put = self.operate(async move { inner.put(&key, content.into()).await }).await;
        put.map(drop).map_err(no_place)
    }

    /// The same in many pieces.
    pub(super) fn upload(&self, key: &str) -> Upload {
        Upload::new(self.clone(), key)
    }

    pub(super) async fn begin_parts(
        &self,
        key: &str,
    ) -> Result<Box<dyn object_store::MultipartUpload>, StoreError> {
        let (inner, key) = (Arc::clone(&self.inner), Key::from(key));
        self.operate(async move { inner.put_multipart(&key).await }).await.map_err(no_place)
    }

    /// Removes an object; one that is not there is removed.
    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let (inner, key) = (Arc::clone(&self.inner), Key::from(key));
        match self.operate(async move { inner.delete(&key).await }).await {
            Err(StoreError::Missing) => Ok(()),
            deleted => deleted,
        }
    }

    /// All objects, in no order; an error ends the list.
    pub(super) fn list(&self) -> mpsc::Receiver<Result<Listed, StoreError>> {
        let (sender, receiver) = mpsc::channel(LISTED_WAITING_MAX);
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let mut all = inner.list(None);
            while let Some(found) = all.next().await {
                let listed = found.map_err(sorted).map(|meta| Listed {
                    key: meta.location.to_string(),
                    written_at_ms: meta.last_modified.timestamp_millis(),
                });
                let failed = listed.is_err();
                if sender.send(listed).await.is_err() || failed {
                    return;
                }
            }
        });
        receiver
    }

    /// Does one thing within its limits.
    pub(super) async fn operate<T: Send + 'static>(
        &self,
        operation: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, StoreError> {
        within(&self.operations, async move { operation.await.map_err(sorted) }).await
    }
}

/// The operation goes on by itself if it takes too long, and keeps its place until it ends.
async fn within<T: Send + 'static>(
    operations: &Arc<Semaphore>,
    operation: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let hangs = |_| StoreError::Away(format!("it does not answer within {} s", OPERATION_MAX.as_secs()));
    let place = tokio::time::timeout(OPERATION_MAX, Arc::clone(operations).acquire_owned());
    let place = place.await.map_err(hangs)?.map_err(|e| StoreError::Away(e.to_string()))?;
    let task = tokio::spawn(async move {
        let _place = place;
        operation.await
    });
    let done = tokio::time::timeout(OPERATION_MAX, task).await.map_err(hangs)?;
    done.map_err(|e| StoreError::Away(e.to_string()))?
}

/// For who writes, what is not there is the folder or the bucket.
fn no_place(error: StoreError) -> StoreError {
    match error {
        StoreError::Missing => StoreError::Away("there is no such folder or bucket".to_owned()),
        away @ StoreError::Away(_) => away,
    }
}

/// An object that is not there is one thing, all else is the store's trouble.
fn sorted(error: object_store::Error) -> StoreError {
    if matches!(error, object_store::Error::NotFound { .. }) {
        return StoreError::Missing;
    }
    StoreError::Away(one_line(&error))
}

/// The error with its causes, which is what says why; without the lines of a document that a bucket sent.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect()
}

/// The longest text of an error that is kept.
const TEXT_CHARS_MAX: usize = 500;

/// What a server that was killed left of objects that were being written in a folder: files that nobody ever sees, last written before
/// `before_ms`. How many were removed.
pub(super) fn remove_halves(folder: &Path, before_ms: i64) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let (mut removed, mut folders) = (0, vec![PathBuf::from(folder)]);
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue, // it became empty meanwhile
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && is_half(&entry.file_name().to_string_lossy()) {
                let written_ms =
                    |m: &std::fs::Metadata| m.mtime().saturating_mul(1_000) + m.mtime_nsec() / 1_000_000;
                let is_old = |m: std::fs::Metadata| written_ms(&m) < before_ms;
                if entry.metadata().is_ok_and(is_old) && std::fs::remove_file(entry.path()).is_ok() {
                    removed += 1;
                }
            }
        }
    }
    Ok(removed)
}

/// `KEY#1`: the name of an object that is being written.
fn is_half(name: &str) -> bool {
    let number = name.rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
