//! Puts a backup in the place of the database, while the server is stopped; and the rehearsal of that.
//!
//! What a crash can leave, in the order of the steps, and what follows. The present database is never changed but moved aside.
//!
//! | on disk                                            | a start of the server | the restore, run again          |
//! |----------------------------------------------------|-----------------------|---------------------------------|
//! | `DB.restoring`, incomplete, and `DB`               | refused               | copies anew                     |
//! | `DB.restoring` prepared, and `DB`                  | refused               | the same                        |
//! | `DB.restoring`, and `DB.replaced-TIME` instead of `DB` | refused           | goes on; nothing is left to move |
//! | `DB` (the backup), and `DB.replaced-TIME`          | goes on from the backup | restores once more            |
//!
//! A restored database begins an epoch that lies a leap above every one that is known, so agents obey it without a person's word: the
//! restore is that word (see docs/decisions). What happened since the backup comes back from the agents; see `scheduler`'s `recovery`.

use crate::backup::{self, Manifest};
use crate::db::{self, Checked, Claim, Database as _, Since, Sqlite};
use crate::operation::{Progress, Tell, Unit};
use anyhow::{Context, bail};
use scheduler::Engine;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Copied between two words on how far it is.
const PIECE_BYTES: u64 = 16 << 20;

/// What is to be restored, and over what.
#[derive(Clone, Debug)]
pub struct Order {
    /// The backup.
    pub backup: PathBuf,
    /// The database.
    pub database: PathBuf,
    /// At least this epoch, if somebody knows of a higher one.
    pub epoch_min: Option<u64>,
    /// Go on although there is no manifest by which the copy could be verified.
    pub unverified: bool,
}

/// Restores. The caller has the data root's lock. Returns lines for people.
pub fn restore(order: &Order, now_ms: i64, tell: Tell<'_>) -> anyhow::Result<Vec<String>> {
    let mut lines = describe(order, tell)?;
    let path = &order.database;
    let _claim = Claim::take(path)
        .map_err(|e| anyhow::anyhow!("the database {} cannot be replaced: {e}", path.display()))?;
    let restoring = db::restoring(path);
    copy_file(&order.backup, &restoring, tell)?;
    let checked = check(&restoring, tell)?;
    refuse_damaged(&checked)?;
    lines.extend(tell_findings(&checked));
    tell(Progress::begun("reading the database that is replaced"));
    let since = look_at_replaced(path, order.epoch_min, &mut lines);
    tell(Progress::begun("preparing"));
    let contents = db::prepare(&restoring, since)?;
    if let Some(aside) = move_aside(path, now_ms)? {
        lines.push(format!("the replaced database is kept as {}", aside.display()));
    }
    std::fs::rename(&restoring, path).with_context(|| format!("naming {}", path.display()))?;
    sync_folder(path)?;
    lines.push(format!(
        "restored to {}: epoch {}, commit {}; new jobs have numbers above those that may have been given since",
        path.display(),
        contents.identity.epoch,
        contents.commit
    ));
    lines.push(
        "start the server: agents tell what they ran since the backup, and jobs of the backup that waited then go on when all have told \
         (`lastword server status` shows who is awaited)"
            .to_owned(),
    );
    Ok(lines)
}

/// Does everything but the replacing, in a folder of its own. `present`: the database that would be replaced.
pub fn rehearse(order: &Order, tell: Tell<'_>) -> anyhow::Result<Vec<String>> {
    let mut lines = describe(order, tell)?;
    let scratch = Scratch::new(&order.backup)?;
    let copy = scratch.0.join("server.db");
    copy_file(&order.backup, &copy, tell)?;
    let checked = check(&copy, tell)?;
    refuse_damaged(&checked)?;
    lines.push(format!(
        "checked {} jobs, {} runs, {} messages: {} contradictions",
        checked.jobs,
        checked.runs,
        checked.facts,
        checked.findings.len()
    ));
    lines.extend(tell_findings(&checked));
    if order.database.exists() {
        tell(Progress::begun("comparing"));
        match db::compare(&order.database, &copy) {
            Ok(differences) => lines.extend(tell_differences(&differences)),
            Err(e) => lines.push(format!("the present database cannot be compared: {e}")),
        }
    } else {
        lines.push(format!("there is no database at {} to compare with", order.database.display()));
    }
    tell(Progress::begun("preparing"));
    let since = Since { epoch: order.epoch_min, last_job: None };
    let contents = db::prepare(&copy, since)?;
    let database = Sqlite::open(&copy)?;
    let engine = Engine::restore(database.load()?, job::RunIds::new([0; 32]))?;
    lines.push(format!(
        "a server can start on it: epoch {}, {} jobs that are not over, {} agents to tell what they ran since",
        contents.identity.epoch + 1,
        engine.counts().iter().filter(|(status, _)| !status.is_final()).map(|(_, count)| count).sum::<u64>(),
        engine.recovery().map_or(0, |recovery| recovery.untold.len())
    ));
    lines.push("nothing was changed".to_owned());
    Ok(lines)
}

/// Verifies the backup against its manifest and says what it is.
fn describe(order: &Order, tell: Tell<'_>) -> anyhow::Result<Vec<String>> {
    let backup = &order.backup;
    match backup::read_manifest(backup) {
        Ok(manifest) => {
            backup::verify(backup, &manifest, tell)?;
            Ok(vec![tell_manifest(backup, &manifest)])
        }
        Err(e) if order.unverified && backup.is_file() => {
            Ok(vec![format!("{}: not verified: {e:#}", backup.display())])
        }
        Err(e) => Err(e.context(format!(
            "{} cannot be verified; if no better backup is there, --unverified takes it after SQLite's own check",
            backup.display()
        ))),
    }
}

fn tell_manifest(backup: &Path, manifest: &Manifest) -> String {
    format!(
        "{}: made {} by {} on {}, epoch {}, commit {}, jobs up to {}, {} bytes; its SHA-256 is right",
        backup.display(),
        api::Time { ms: manifest.made_at_ms },
        manifest.software,
        manifest.node,
        manifest.epoch,
        manifest.commit,
        manifest.last_job,
        manifest.bytes
    )
}

fn check(path: &Path, tell: Tell<'_>) -> anyhow::Result<Checked> {
    db::contents(path)?; // whose file it is, before anything else is asked
    let checked = db::check_file(path, tell)?;
    Ok(checked)
}

fn refuse_damaged(checked: &Checked) -> anyhow::Result<()> {
    if let Some(damage) =
        checked.findings.iter().find(|finding| finding.what.starts_with("the file is damaged"))
    {
        bail!("the backup cannot be used: {}; take another backup", damage.what);
    }
    Ok(())
}

fn tell_findings(checked: &Checked) -> impl Iterator<Item = String> {
    checked.findings.iter().map(|finding| format!("{}: {}", finding.what, finding.advice))
}

fn tell_differences(d: &db::Differences) -> Vec<String> {
    let mut lines = vec![
        format!("since the backup: {} commits", d.commits),
        format!(
            "come back from the agents: {} outcomes, {} jobs that were submitted since and placed",
            d.outcomes, d.jobs_told
        ),
        format!("would be lost: {} jobs that were submitted since and never placed", d.jobs_lost),
    ];
    if d.canceled > 0 {
        lines.push(format!("would wait again: {} jobs that were taken back since", d.canceled));
    }
    lines.extend(d.lost.iter().map(|what| format!("would be lost: {what}")));
    if d.jobs_returned > 0 {
        lines.push(format!("would return: {} jobs that were deleted since", d.jobs_returned));
    }
    lines
}

/// Learns from the database that is to be replaced what it still tells.
fn look_at_replaced(path: &Path, epoch_min: Option<u64>, lines: &mut Vec<String>) -> Since {
    if !path.exists() {
        return Since { epoch: epoch_min, last_job: None };
    }
    match db::fold(path) {
        Ok(contents) => {
            lines.push(format!(
                "the replaced database was in epoch {}, at commit {}, with jobs up to {}",
                contents.identity.epoch, contents.commit, contents.last_job
            ));
            Since { epoch: epoch_min.max(Some(contents.identity.epoch)), last_job: Some(contents.last_job) }
        }
        Err(e) => {
            lines.push(format!("the replaced database cannot be read ({e}); it is kept as it is"));
            Since { epoch: epoch_min, last_job: None }
        }
    }
}

/// Moves the database with its log to another name. `None` if there is none.
fn move_aside(path: &Path, now_ms: i64) -> anyhow::Result<Option<PathBuf>> {
    let stamp = api::Time { ms: now_ms }.to_millis().replace([' ', ':', '.'], "-");
    let named = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = named(&format!(".replaced-{stamp}"));
    for end in ["", "-wal", "-shm"] {
        let (from, mut to) = (named(end), aside.clone().into_os_string());
        to.push(end);
        match std::fs::rename(&from, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("moving {} aside", from.display())),
        }
    }
    sync_folder(path)?;
    Ok(aside.exists().then_some(aside))
}

/// A durable copy for its owner's eyes only.
fn copy_file(from: &Path, to: &Path, tell: Tell<'_>) -> anyhow::Result<()> {
    let copy = || {
        match std::fs::remove_file(to) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
        let mut target = os::disk::create_new(to)?;
        let source = std::fs::File::open(from)?;
        let total = source.metadata()?.len();
        let mut done = 0;
        loop {
            let copied = std::io::copy(&mut (&source).take(PIECE_BYTES), &mut target)?;
            if copied == 0 {
                break;
            }
            done += copied;
            tell(Progress { step: "copying", done, total, unit: Unit::Bytes });
        }
        tell(Progress::begun("syncing"));
        target.sync_all()
    };
    copy().with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

fn sync_folder(path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().context("the database has no folder")?;
    let synced = os::disk::open_dir(folder).and_then(os::disk::sync_dir);
    synced.with_context(|| format!("syncing {}", folder.display()))
}

/// A folder beside the backup that is removed at the end, or by the next rehearsal.
struct Scratch(PathBuf);

impl Scratch {
    fn new(backup: &Path) -> anyhow::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = backup.file_name().context("the backup has no name")?.to_string_lossy();
        let folder = backup.with_file_name(format!(".{name}.rehearsal"));
        os::disk::remove_tree(&folder).with_context(|| format!("removing {}", folder.display()))?;
        let created = std::fs::DirBuilder::new().mode(0o700).create(&folder);
        created.with_context(|| format!("creating {}", folder.display()))?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = os::disk::remove_tree(&self.0); // what stays is removed by the next rehearsal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Backups;

    /// Nobody wants to know how far it is.
    const NOBODY: Tell<'_> = &|_| {};

    fn order(backup: &Path, database: &Path) -> Order {
        Order { backup: backup.to_owned(), database: database.to_owned(), epoch_min: None, unverified: false }
    }

    #[test]
    fn a_restored_database_is_the_backup_in_a_far_later_epoch_and_the_replaced_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.db");
        let backups = Backups::new("a", &dir.path().join("backups"));
        let made = {
            let database = Sqlite::open(&path).unwrap();
            database.commit(&[]).unwrap();
            let made = backups.make(&database, None, 1, NOBODY).unwrap();
            database.commit(&[]).unwrap();
            assert!(
                restore(&order(&made.path, &path), 2, NOBODY)
                    .unwrap_err()
                    .to_string()
                    .contains("another central-server")
            );
            made
        };
        let rehearsed = rehearse(&order(&made.path, &path), NOBODY).unwrap().join("\n");
        assert!(
            rehearsed.contains("since the backup: 1 commits") && rehearsed.contains("nothing was changed"),
            "{rehearsed}"
        );
        let lines = restore(&order(&made.path, &path), 2, NOBODY).unwrap().join("\n");
        assert!(lines.contains("was in epoch 1, at commit 2"), "{lines}");
        let database = Sqlite::open(&path).unwrap();
        assert_eq!((database.identity().epoch, database.commit_number()), (1 + db::EPOCH_LEAP + 1, 1));
        let aside: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .filter_map(|entry| Some(entry.ok()?.path()).filter(|p| p.to_string_lossy().contains("replaced")))
            .collect();
        assert_eq!(aside.len(), 1);
        assert_eq!(db::contents(&aside[0]).unwrap().commit, 2);
    }

    #[test]
    fn a_damaged_backup_is_refused_and_so_is_a_start_after_half_a_restore() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.db");
        let backups = Backups::new("a", &dir.path().join("backups"));
        let made = backups.make(&Sqlite::open(&path).unwrap(), None, 1, NOBODY).unwrap();
        let whole = std::fs::read(&made.path).unwrap();
        std::fs::write(&made.path, &whole[..whole.len() / 2]).unwrap();
        assert!(restore(&order(&made.path, &path), 2, NOBODY).unwrap_err().to_string().contains("damaged"));
        let unverified = Order { unverified: true, ..order(&made.path, &path) };
        std::fs::remove_file(made.path.with_extension("backup.json")).unwrap();
        assert!(restore(&order(&made.path, &path), 2, NOBODY).is_err(), "no manifest");
        assert!(restore(&unverified, 2, NOBODY).is_err(), "half a file");
        drop(db::contents(&path).unwrap());
        assert!(db::restoring(&path).exists());
        let refused = Sqlite::open(&path).err().unwrap().to_string();
        assert!(refused.contains("restore"), "{refused}");
        std::fs::write(&made.path, &whole).unwrap();
        restore(&unverified, 3, NOBODY).unwrap();
        Sqlite::open(&path).unwrap();
    }
}
