//! Both kinds of stores keep the same promises.

use super::store::{Opened, remove_halves};
use super::{Place, Store, StoreError};
use crate::settings;
use std::path::Path;

/// More than a part, and not a multiple of one.
fn great() -> Vec<u8> {
    (0..20_000_000u32).map(|n| (n % 251) as u8).collect()
}

async fn open(store: &Store) -> Result<Opened, StoreError> {
    store.opened(|_| async { Ok(()) }).await
}

fn folder(path: &Path, url: &str) -> Store {
    let settings = settings::Files { url: url.to_owned(), ..settings::Files::default() };
    Store::new(Place::of(&settings, path).unwrap().unwrap(), 0)
}

async fn keeps_its_promises(store: &Opened) {
    let great = great();
    store.put("1/r/small", b"hello".to_vec()).await.unwrap();
    store.put("1/r/empty", Vec::new()).await.unwrap();
    let mut upload = store.upload("1/r/great");
    for piece in great.chunks(1_000_001) {
        upload.write(piece).await.unwrap();
        assert_eq!(store.size("1/r/great").await, Err(StoreError::Missing), "nothing of it is visible yet");
    }
    upload.finish().await.unwrap();
    assert_eq!(store.size("1/r/great").await, Ok(20_000_000));
    assert_eq!(store.read("1/r/great", 8_388_600..8_388_700).await.unwrap()[..], great[8_388_600..8_388_700]);
    assert_eq!(store.read("1/r/great", 0..20_000_000).await.unwrap()[..], great);
    assert_eq!(store.read("1/r/small", 1..3).await.unwrap()[..], b"el"[..]);
    assert_eq!(store.read("1/r/empty", 0..0).await.unwrap().len(), 0);
    assert!(
        matches!(store.read("1/r/small", 1..9).await, Err(StoreError::Away(_))),
        "less is not passed off as all"
    );
    for key in ["1/r/none", "2/r/none"] {
        assert_eq!(store.read(key, 0..1).await, Err(StoreError::Missing));
    }
    let mut upload = store.upload("1/r/given-up");
    upload.write(&great).await.unwrap();
    upload.abort().await;
    store.put("1/r/small", b"again".to_vec()).await.unwrap();
    assert_eq!(keys(store).await, ["1/r/empty", "1/r/great", "1/r/small"]);
    for key in ["1/r/great", "1/r/empty", "1/r/none"] {
        store.delete(key).await.unwrap();
    }
    assert_eq!(store.read_small("1/r/small").await.unwrap()[..], b"again"[..]);
    store.delete("1/r/small").await.unwrap();
    assert_eq!(keys(store).await, [""; 0]);
}

async fn keys(store: &Opened) -> Vec<String> {
    let (mut list, mut keys) = (store.list(), Vec::new());
    while let Some(object) = list.recv().await {
        keys.push(object.unwrap().key);
    }
    keys.sort();
    keys
}

#[tokio::test]
async fn a_folder_keeps_its_promises() {
    let dir = tempfile::tempdir().unwrap();
    let store = folder(dir.path(), "file:files");
    keeps_its_promises(&open(&store).await.unwrap()).await;
    assert!(
        std::fs::read_dir(dir.path().join("files")).is_ok_and(|mut left| left.next().is_none()),
        "no folder stays"
    );
    assert_eq!(store.url(), format!("file://{}/files", dir.path().display()));
}

#[tokio::test]
async fn a_folder_outside_the_data_root_is_not_made() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = other.path().join("share");
    let store = folder(dir.path(), &format!("file://{}", path.display()));
    let error = open(&store).await.err().unwrap().to_string();
    assert!(error.contains("is it mounted") && !path.exists(), "{error}");
    std::fs::create_dir(&path).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await; // a store that failed is let alone for so long
    open(&store).await.unwrap();
}

#[tokio::test]
async fn a_file_that_would_leave_too_little_room_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings::Files::default();
    let store = Store::new(Place::of(&settings, dir.path()).unwrap().unwrap(), 1 << 20);
    open(&store).await.unwrap();
    assert_eq!(store.check_room(1).await, Ok(None));
    let reason = store.check_room(1 << 60).await.unwrap().unwrap();
    assert!(reason.contains("free_bytes_min"), "{reason}");
    let full = Store::new(Place::of(&settings, dir.path()).unwrap().unwrap(), 1 << 60);
    assert!(matches!(full.check_room(0).await, Err(StoreError::Away(_))), "not the least one then");
}

#[tokio::test]
async fn what_a_killed_server_left_half_written_is_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = folder(dir.path(), "file:files");
    let opened = open(&store).await.unwrap();
    opened.put("1/r/whole", b"x".to_vec()).await.unwrap();
    let run = dir.path().join("files/1/r");
    for name in ["half#1", "half#22", "no#", "no#x", "no"] {
        std::fs::write(run.join(name), "x").unwrap();
    }
    let folder = dir.path().join("files");
    assert_eq!(
        remove_halves(&folder, 0).unwrap(),
        0,
        "they are younger than that: somebody may be writing them"
    );
    assert_eq!(remove_halves(&folder, i64::MAX).unwrap(), 2);
    let mut left: Vec<_> = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["no", "no#", "no#x", "whole"]);
}

#[cfg(feature = "s3")]
mod bucket {
    use super::super::fake_s3::{Bucket, KEY};
    use super::*;
    use axum::http::StatusCode;
    use std::os::unix::fs::PermissionsExt;

    /// A store in a bucket, with its credentials in a file.
    async fn store(bucket: &Bucket, dir: &Path, url: &str, key: &str) -> Store {
        let credentials = dir.join("credentials");
        std::fs::write(
            &credentials,
            format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = hush\n"),
        )
        .unwrap();
        std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = settings::Files {
            url: url.to_owned(),
            endpoint: Some(bucket.serve().await),
            credentials_file: Some(credentials),
            ..settings::Files::default()
        };
        let text = format!("{settings:?}");
        assert!(!text.contains("hush"), "{text}");
        Store::new(Place::of(&settings, dir).unwrap().unwrap(), 0)
    }

    #[tokio::test]
    async fn a_bucket_keeps_its_promises_and_is_asked_in_its_own_words() {
        let (dir, bucket) = (tempfile::tempdir().unwrap(), Bucket::default());
        let store = store(&bucket, dir.path(), "s3://files/deep/er", KEY).await;
        let opened = open(&store).await.unwrap();
        keeps_its_promises(&opened).await;
        assert_eq!((bucket.objects().len(), bucket.uploads()), (0, 0), "no part stays");
        bucket.requests();
        opened.put("1/r/x", b"hello".to_vec()).await.unwrap();
        assert_eq!(
            bucket.objects().into_iter().collect::<Vec<_>>(),
            [("deep/er/1/r/x".to_owned(), b"hello".to_vec())]
        );
        opened.read("1/r/x", 0..5).await.unwrap();
        opened.delete("1/r/x").await.unwrap();
        let asked = ["PUT /files/deep/er/1/r/x", "GET /files/deep/er/1/r/x", "DELETE /files/deep/er/1/r/x"];
        assert_eq!(bucket.requests(), asked);
        let mut upload = opened.upload("1/r/y");
        upload.write(&great()).await.unwrap();
        upload.finish().await.unwrap();
        let asked = bucket.requests();
        let puts = asked
            .iter()
            .filter(|request| request.starts_with("PUT /files/deep/er/1/r/y?partNumber="))
            .count();
        assert_eq!((asked.len(), puts), (5, 3), "{asked:?}");
        assert!(asked[0].starts_with("POST /files/deep/er/1/r/y?uploads"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_bucket_that_is_not_there_refuses_or_fails_is_away_and_tells_no_secret() {
        let (dir, bucket) = (tempfile::tempdir().unwrap(), Bucket::default());
        let missing = store(&bucket, dir.path(), "s3://other", KEY).await;
        let missing = open(&missing).await.unwrap().put("k", b"x".to_vec()).await;
        assert!(matches!(missing, Err(StoreError::Away(_))), "{missing:?}");
        let refused = store(&bucket, dir.path(), "s3://files", "AKIAOTHER").await;
        let refused = open(&refused).await.unwrap().put("k", b"x".to_vec()).await.unwrap_err().to_string();
        assert!(refused.contains("AccessDenied") && !refused.contains("hush"), "{refused}");
        let opened = open(&store(&bucket, dir.path(), "s3://files", KEY).await).await.unwrap();
        bucket.fail(Some(StatusCode::SERVICE_UNAVAILABLE));
        assert!(matches!(opened.read("k", 0..1).await, Err(StoreError::Away(_))));
        let tried = bucket.requests();
        assert!(tried.len() > 1, "it is tried again: {tried:?}");
        bucket.fail(None);
        assert_eq!(opened.read("k", 0..1).await, Err(StoreError::Missing));
    }
}
