//! Backups: a consistent copy of the database, made while the server works, and a manifest beside it that tells whether the copy is whole.
//!
//! What a crash can leave in the folder of backups:
//!
//! | on disk                         | meaning                              | recovery                                        |
//! |---------------------------------|--------------------------------------|-------------------------------------------------|
//! | `.NAME.NODE.tmp`                | died while copying                   | removed when the next backup is made there      |
//! | `NAME` without `NAME.json`      | died before the manifest was written | not listed, not restored (`--unverified` does)  |
//! | `NAME.json` without `NAME`      | somebody removed the copy            | not listed                                      |
//! | both                            | a backup; both are synced            |                                                 |
//!
//! Making one reads the database at one moment and lets commits go on. The server's file store and the agents' data roots are not in it.

use crate::audited;
use crate::auth::{Caller, Role};
use crate::core::{Handle, Order};
use crate::db::{self, Contents, Database};
use crate::operation::{self, Operations, Outcome, Progress, Tell, Unit};
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The form of a manifest.
const FORMAT: u32 = 1;
/// The end of a backup's name.
const SUFFIX: &str = ".backup";
/// A manifest is small; more is something else.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// What is known of a backup without opening it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of this file.
    pub format: u32,
    /// The program that made it.
    pub software: String,
    /// The server that made it.
    pub node: String,
    /// When, milliseconds since 1970.
    pub made_at_ms: i64,
    /// Which database.
    pub database_id: String,
    /// Its epoch then.
    pub epoch: u64,
    /// The last commit in it.
    pub commit: u64,
    /// The version of its tables.
    pub schema: u32,
    /// The highest job number in it.
    pub last_job: u64,
    /// Its size.
    pub bytes: u64,
    /// Of the whole file, hexadecimal.
    pub sha256: String,
    /// The rows of each table.
    pub rows: BTreeMap<String, u64>,
}

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The copy.
    pub path: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
}

/// Makes backups. That there is one at a time is seen to by [`Operations`].
pub struct Backups {
    node: String,
    /// Where those go that nobody names a place for.
    pub directory: PathBuf,
    /// Folders are made in here only: one elsewhere that is not there may be on a disk that is not mounted.
    own: PathBuf,
}

impl Backups {
    /// In this folder, which is made, unless told otherwise.
    pub fn new(node: &str, directory: &Path) -> Backups {
        Backups { node: node.to_owned(), directory: directory.to_owned(), own: directory.to_owned() }
    }

    /// In this folder of a server, which is made only if it is in the data root.
    pub fn of_server(node: &str, data_root: &Path, directory: &Path) -> Backups {
        let directory = config::resolve(data_root, directory);
        Backups { node: node.to_owned(), directory, own: data_root.to_owned() }
    }

    /// Whether the usual folder can be used as things stand. Makes nothing.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.is_own(&self.directory) { Ok(()) } else { must_be_there(&self.directory) }
    }

    fn is_own(&self, folder: &Path) -> bool {
        folder.starts_with(&self.own) && !folder.components().any(|part| part == Component::ParentDir)
    }

    /// Makes one: as `to` if that is the name of a new file, in `to` if it is a folder, else in the usual folder.
    pub fn make(
        &self,
        database: &dyn Database,
        to: Option<&Path>,
        now_ms: i64,
        tell: Tell<'_>,
    ) -> anyhow::Result<Made> {
        let path = self.place(to, now_ms)?;
        let folder = path.parent().context("the backup has no folder")?;
        if self.is_own(folder) {
            create_folder(folder)?
        } else {
            must_be_there(folder)?
        }
        let end = format!(".{}.tmp", self.node);
        remove_leftovers(folder, &end);
        let name = path.file_name().context("the backup has no name")?.to_string_lossy().into_owned();
        let temporary = folder.join(format!(".{name}{end}"));
        let _ = std::fs::remove_file(&temporary);
        let made = self.write(database, &path, &temporary, now_ms, tell);
        if made.is_err() {
            let _ = std::fs::remove_file(&temporary); // what stays is removed by the next backup
        }
        made
    }

    fn write(
        &self,
        database: &dyn Database,
        path: &Path,
        temporary: &Path,
        now_ms: i64,
        tell: Tell<'_>,
    ) -> anyhow::Result<Made> {
        // Created here, so that it is for its owner's eyes only: it holds the agents' secrets.
        drop(os::disk::create_new(temporary).with_context(|| format!("creating {}", temporary.display()))?);
        database
            .copy_to(temporary, tell)
            .with_context(|| format!("copying the database to {}", temporary.display()))?;
        tell(Progress::begun("counting what is in it"));
        let contents = db::contents(temporary)?;
        let file = File::open(temporary).with_context(|| format!("opening {}", temporary.display()))?;
        tell(Progress::begun("syncing"));
        file.sync_all().with_context(|| format!("syncing {}", temporary.display()))?;
        let (sha256, bytes) = digest(&file, "reading the copy", tell)
            .with_context(|| format!("reading {}", temporary.display()))?;
        let manifest = manifest(&self.node, contents, sha256, bytes, now_ms);
        ensure!(!path.exists(), "{} is there already; a backup replaces nothing", path.display());
        std::fs::rename(temporary, path).with_context(|| format!("naming {}", path.display()))?;
        let json = serde_json::to_vec_pretty(&manifest)?;
        os::disk::replace(&manifest_path(path), &json, 0o600)
            .with_context(|| format!("writing the manifest of {}", path.display()))?;
        Ok(Made { path: path.to_owned(), manifest })
    }

    fn place(&self, to: Option<&Path>, now_ms: i64) -> anyhow::Result<PathBuf> {
        let stamp = api::Time { ms: now_ms }.to_millis().replace([' ', ':', '.'], "-");
        let name = format!("{}-{stamp}{SUFFIX}", self.node);
        let Some(to) = to else { return Ok(self.directory.join(name)) };
        let to = self.directory.join(to); // an absolute path stays as it is
        let is_folder = to.is_dir() || to.as_os_str().as_encoded_bytes().ends_with(b"/");
        let path = if is_folder { to.join(name) } else { to };
        ensure!(path.is_absolute(), "{} is not an absolute path", path.display());
        ensure!(!path.exists(), "{} is there already; a backup replaces nothing", path.display());
        Ok(path)
    }

    /// Every complete backup of the usual folder, the newest first.
    pub fn list(&self) -> anyhow::Result<Vec<Made>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("reading {}", self.directory.display())),
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == &SUFFIX[1..])
                && let Ok(manifest) = read_manifest(&path)
            {
                found.push(Made { path, manifest });
            }
        }
        found.sort_by_key(|made| std::cmp::Reverse(made.manifest.made_at_ms));
        Ok(found)
    }

    /// Removes all but the newest `keep` of the usual folder that this server made.
    pub fn thin_out(&self, keep: usize) -> anyhow::Result<usize> {
        let ours = self.list()?.into_iter().filter(|made| made.manifest.node == self.node);
        let mut removed = 0;
        for made in ours.skip(keep.max(1)) {
            // The manifest first: without it the copy is no backup any more.
            for path in [manifest_path(&made.path), made.path.clone()] {
                std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            }
            removed += 1;
        }
        Ok(removed)
    }
}

/// Makes backups by itself, `every` so long after the newest one, and keeps the newest of them.
pub(crate) async fn on_schedule(
    backups: Arc<Backups>,
    database: Arc<dyn Database>,
    (operations, handle): (Operations, Handle),
    every: Duration,
    keep: usize,
) {
    if every.is_zero() {
        return;
    }
    loop {
        let made = make_if_due(&backups, &database, (&operations, &handle), every, keep).await;
        if let Err(e) = made {
            tracing::error!(
                "the scheduled backup could not be made; next try in {} s: {e:#}",
                LOOK.as_secs()
            );
            metrics::counter!("lastword_backup_failures_total").increment(1);
        }
        tokio::time::sleep(LOOK.min(every)).await;
    }
}

async fn make_if_due(
    backups: &Arc<Backups>,
    database: &Arc<dyn Database>,
    (operations, handle): (&Operations, &Handle),
    every: Duration,
    keep: usize,
) -> anyhow::Result<()> {
    let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
    let (list, now_ms) = (Arc::clone(backups), os::clock::wall_ms());
    let newest = tokio::task::spawn_blocking(move || list.list()).await??;
    let newest = newest.first().map(|made| made.manifest.made_at_ms);
    // A clock that was set back must not stop the backups.
    if newest.is_some_and(|newest| (newest..newest.saturating_add(every_ms)).contains(&now_ms)) {
        return Ok(());
    }
    let (making, database) = (Arc::clone(backups), Arc::clone(database));
    let work = move |tell: Tell<'_>| {
        let made = making.make(&*database, None, now_ms, tell)?;
        making.thin_out(keep)?;
        Ok(Outcome::Made(Box::new(made)))
    };
    let caller = Caller { name: SCHEDULE.to_owned(), role: Role::Admin, ..Caller::default() };
    let order = Arc::new(Order::new(caller, String::new(), String::new()));
    let asked = (operation::Kind::Backup, json!({}));
    let begun = audited::begin(operations, handle, &order, asked, work).await;
    let Ok(mut begun) = begun else { return Ok(()) }; // one that somebody asked for is being made
    match operation::wait(&mut begun.state, Duration::MAX).await.outcome {
        Some(Outcome::Made(made)) => {
            let Manifest { commit, bytes, .. } = made.manifest;
            tracing::info!(commit, bytes, "backup {}", made.path.display());
            Ok(())
        }
        Some(Outcome::Failed(why)) => bail!(why),
        Some(Outcome::Checked(_)) | None => Ok(()),
    }
}

/// Who makes the backups that nobody asks for, in the audit and in the list of operations.
const SCHEDULE: &str = "schedule";

/// Between two looks whether a backup is due.
const LOOK: Duration = Duration::from_secs(60);

fn manifest(node: &str, contents: Contents, sha256: String, bytes: u64, now_ms: i64) -> Manifest {
    Manifest {
        format: FORMAT,
        software: concat!("central-server ", env!("CARGO_PKG_VERSION")).to_owned(),
        node: node.to_owned(),
        made_at_ms: now_ms,
        database_id: hex(&contents.identity.database_id),
        epoch: contents.identity.epoch,
        commit: contents.commit,
        schema: contents.schema,
        last_job: contents.last_job,
        bytes,
        sha256,
        rows: contents.rows,
    }
}

/// Reads the manifest of a backup whose copy is there.
pub fn read_manifest(backup: &Path) -> anyhow::Result<Manifest> {
    let path = manifest_path(backup);
    let file = File::open(&path).with_context(|| format!("opening the manifest {}", path.display()))?;
    let mut text = String::new();
    file.take(MANIFEST_BYTES_MAX)
        .read_to_string(&mut text)
        .with_context(|| format!("reading the manifest {}", path.display()))?;
    let manifest: Manifest =
        serde_json::from_str(&text).with_context(|| format!("the manifest {}", path.display()))?;
    ensure!(manifest.format == FORMAT, "{} is of form {}, not {FORMAT}", path.display(), manifest.format);
    ensure!(backup.is_file(), "{} is not there", backup.display());
    Ok(manifest)
}

/// Whether the copy is what was written, bit by bit.
pub fn verify(backup: &Path, manifest: &Manifest, tell: Tell<'_>) -> anyhow::Result<()> {
    let file = File::open(backup).with_context(|| format!("opening {}", backup.display()))?;
    let read = digest(&file, "reading the backup", tell);
    let (sha256, bytes) = read.with_context(|| format!("reading {}", backup.display()))?;
    ensure!(
        bytes == manifest.bytes && sha256 == manifest.sha256,
        "the backup {} is damaged: its manifest says {} bytes with SHA-256 {}, and it has {bytes} with {sha256}; take another backup",
        backup.display(),
        manifest.bytes,
        manifest.sha256
    );
    Ok(())
}

fn manifest_path(backup: &Path) -> PathBuf {
    let mut name = backup.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

fn digest(mut file: &File, step: &'static str, tell: Tell<'_>) -> std::io::Result<(String, u64)> {
    let total = file.metadata()?.len();
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex(&hash.finalize()), bytes));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
        tell(Progress { step, done: bytes, total, unit: Unit::Bytes });
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn must_be_there(folder: &Path) -> anyhow::Result<()> {
    ensure!(
        folder.is_dir(),
        "{}: there is no such folder; is it mounted? A folder outside the data root is not made",
        folder.display()
    );
    Ok(())
}

fn create_folder(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("creating {}", folder.display()))
}

fn remove_leftovers(folder: &Path, end: &str) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') && name.ends_with(end) {
            let _ = std::fs::remove_file(entry.path()); // tried again next time
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Sqlite;

    fn folder() -> (tempfile::TempDir, Sqlite, Backups) {
        let dir = tempfile::tempdir().unwrap();
        let database = Sqlite::open(&dir.path().join("server.db")).unwrap();
        let backups = Backups::new("a", &dir.path().join("backups"));
        (dir, database, backups)
    }

    #[test]
    fn a_backup_is_whole_says_what_it_holds_and_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_dir, database, backups) = folder();
        database.commit(&[]).unwrap();
        let made = backups.make(&database, None, 1_000, &|_| {}).unwrap();
        assert_eq!((made.manifest.commit, made.manifest.epoch), (1, 1));
        assert_eq!(made.manifest.rows["queues"], 1);
        assert_eq!(read_manifest(&made.path).unwrap(), made.manifest);
        let folder = backups.directory.join("new/");
        let other = backups.make(&database, Some(&folder), 2_000, &|_| {}).unwrap();
        assert!(other.path.starts_with(&folder) && other.path.is_file(), "{}", other.path.display());
        std::fs::remove_dir_all(folder).unwrap();
        verify(&made.path, &made.manifest, &|_| {}).unwrap();
        assert_eq!(made.path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let names: Vec<_> =
            std::fs::read_dir(&backups.directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "no journal beside it: {names:?}");
        assert!(
            backups
                .make(&database, Some(&made.path), 2, &|_| {})
                .unwrap_err()
                .to_string()
                .contains("replaces nothing")
        );
    }

    #[test]
    fn a_backup_to_a_disk_that_is_not_mounted_is_refused_and_makes_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (root, disk) = (dir.path().join("server"), dir.path().join("disk"));
        let database = Sqlite::open(&dir.path().join("server.db")).unwrap();
        let in_root = Backups::of_server("a", &root, Path::new("backups"));
        in_root.check().unwrap();
        in_root.make(&database, None, 1_000, &|_| {}).unwrap();
        let on_disk = Backups::of_server("a", &root, &disk.join("backups"));
        let up = root.join("../disk/");
        let tries = [
            (&on_disk, None),
            (&in_root, Some(disk.join("x.backup"))),
            (&in_root, Some(disk.join("new/"))),
            (&in_root, Some(up)),
        ];
        for (backups, to) in tries {
            let error = backups.make(&database, to.as_deref(), 2_000, &|_| {}).unwrap_err().to_string();
            assert!(error.contains("is it mounted?"), "{to:?}: {error}");
            assert!(!disk.exists(), "{to:?}");
        }
        assert!(on_disk.check().is_err());
        std::fs::create_dir_all(disk.join("backups")).unwrap(); // mounted
        on_disk.check().unwrap();
        on_disk.make(&database, None, 3_000, &|_| {}).unwrap();
    }

    #[test]
    fn a_flipped_bit_is_seen() {
        let (_dir, database, backups) = folder();
        let made = backups.make(&database, None, 1_000, &|_| {}).unwrap();
        let mut bytes = std::fs::read(&made.path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&made.path, bytes).unwrap();
        assert!(verify(&made.path, &made.manifest, &|_| {}).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn the_newest_are_kept_and_what_is_not_whole_is_not_listed() {
        let (_dir, database, backups) = folder();
        for n in 1..=4 {
            backups.make(&database, None, n * 1_000, &|_| {}).unwrap();
        }
        std::fs::write(backups.directory.join("half.backup"), "").unwrap();
        std::fs::write(backups.directory.join(".dead.backup.a.tmp"), "").unwrap();
        assert_eq!(backups.list().unwrap().len(), 4);
        assert_eq!(backups.thin_out(2).unwrap(), 2);
        let times: Vec<i64> = backups.list().unwrap().iter().map(|made| made.manifest.made_at_ms).collect();
        assert_eq!(times, [4_000, 3_000]);
        backups.make(&database, None, 5_000, &|_| {}).unwrap();
        assert!(!backups.directory.join(".dead.backup.a.tmp").exists());
    }
}
