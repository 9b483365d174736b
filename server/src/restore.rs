//! Puts a backup in the place of the database, while the server is stopped; and the rehearsal of that.
//!
//! What a crash can leave, in the order of the steps, and what follows. The present database is never changed but moved aside.
//!
//! | on disk                                            | a start of the server | the restore, run again          |
//! |----------------------------------------------------|-----------------------|---------------------------------|
//! | `DB.restoring`, incomplete, and `DB`               | refused               | copies anew                     |
//! | `DB.restoring` prepared, and `DB`, and perhaps another name of it, `DB.replaced-TIME` | refused | the same   |
//! | `DB.restoring`, and `DB.replaced-TIME` instead of `DB`, which could not be read | refused | goes on; nothing is left to move |
//! | `DB` (the backup), and `DB.replaced-TIME`          | goes on from the backup | restores once more            |
//!
//! A restored database begins an epoch that lies a leap above every one that is known, so agents obey it without a person's word: the
//! restore is that word (see docs/decisions). What happened since the backup comes back from the agents; see `scheduler`'s `recovery`.

use crate::backup::{self, Manifest};
use crate::db::{self, AuditRecord, Carried, Checked, Claim, Database as _, Differences, Since, Sqlite};
use crate::operation::{Progress, Tell, Unit};
use anyhow::{Context, bail};
use scheduler::Engine;
use serde::Serialize;
use std::io::Read as _;
use std::path::{Path, PathBuf};

mod undone;

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

/// What was done, or would be.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Nothing was changed.
    pub rehearsed: bool,
    /// What somebody has to do afterwards.
    pub warnings: Vec<String>,
    /// What was taken along from the replaced database, by name.
    pub carried: Carried,
    /// What is otherwise afterwards than before; absent if the present database is not there or cannot be read.
    pub differences: Option<Differences>,
    /// The rest, as lines for people.
    pub said: Vec<String>,
}

impl Report {
    /// All of it for people, the warnings last, where they are seen.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = self.said.clone();
        lines.extend(self.warnings.iter().map(|warning| format!("WARNING: {warning}")));
        lines
    }
}

/// Restores. The caller has the data root's lock.
pub fn restore(order: &Order, now_ms: i64, tell: Tell<'_>) -> anyhow::Result<Report> {
    let mut report = Report { said: describe(order, tell)?, ..Report::default() };
    let path = &order.database;
    let _claim = Claim::take(path)
        .map_err(|e| anyhow::anyhow!("the database {} cannot be replaced: {e}", path.display()))?;
    let restoring = db::restoring(path);
    copy_file(&order.backup, &restoring, tell)?;
    let checked = check(&restoring, tell)?;
    refuse_damaged(&checked)?;
    report.said.extend(tell_findings(&checked));
    tell(Progress::begun("reading the database that is replaced"));
    let (since, is_whole) = look_at_replaced(path, order.epoch_min, &mut report);
    tell(Progress::begun("preparing"));
    let (contents, carried) = db::prepare(&restoring, &since, audit_entry(order, now_ms))?;
    report.compare(path, &restoring, carried, tell)?;
    if let Some(aside) = set_aside(path, now_ms, is_whole)? {
        report.said.push(format!("the replaced database is kept as {}", aside.display()));
    }
    std::fs::rename(&restoring, path).with_context(|| format!("naming {}", path.display()))?;
    sync_folder(path)?;
    report.said.push(format!(
        "restored to {}: epoch {}, commit {}; new jobs have numbers above those that may have been given since",
        path.display(),
        contents.identity.epoch,
        contents.commit
    ));
    report.said.push(
        "start the server: agents tell what they ran since the backup, and jobs of the backup that waited then go on when all have told \
         (`lastword server status` shows who is awaited)"
            .to_owned(),
    );
    Ok(report)
}

/// Does everything but the replacing, in a folder of its own.
pub fn rehearse(order: &Order, now_ms: i64, tell: Tell<'_>) -> anyhow::Result<Report> {
    let mut report = Report { rehearsed: true, said: describe(order, tell)?, ..Report::default() };
    let scratch = Scratch::new(&order.backup)?;
    let copy = scratch.0.join("server.db");
    copy_file(&order.backup, &copy, tell)?;
    let checked = check(&copy, tell)?;
    refuse_damaged(&checked)?;
    report.said.push(format!(
        "checked {} jobs, {} runs, {} messages: {} contradictions",
        checked.jobs,
        checked.runs,
        checked.facts,
        checked.findings.len()
    ));
    report.said.extend(tell_findings(&checked));
    tell(Progress::begun("preparing"));
    let since =
        Since { epoch: order.epoch_min, last_job: None, forward: report.look_forward(&order.database) };
    let (contents, carried) = db::prepare(&copy, &since, audit_entry(order, now_ms))?;
    report.compare(&order.database, &copy, carried, tell)?;
    let database = Sqlite::open(&copy)?;
    let engine = Engine::restore(database.load()?, job::RunIds::new([0; 32]))?;
    report.said.push(format!(
        "a server can start on it: epoch {}, {} jobs that are not over, {} agents to tell what they ran since",
        contents.identity.epoch + 1,
        engine.counts().iter().filter(|(status, _)| !status.is_final()).map(|(_, count)| count).sum::<u64>(),
        engine.recovery().map_or(0, |recovery| recovery.untold.len())
    ));
    report.said.push("nothing was changed".to_owned());
    Ok(report)
}

impl Report {
    /// What the database that would be replaced says of who may do what.
    fn look_forward(&mut self, present: &Path) -> Option<db::Forward> {
        if !present.exists() {
            return None; // which is said where it would be compared
        }
        let read = db::forward(present);
        read.map_err(|e| self.said.push(format!("who was shut out since cannot be read: {e}"))).ok()
    }

    /// Says what is otherwise in what was prepared.
    fn compare(
        &mut self,
        present: &Path,
        restored: &Path,
        carried: Carried,
        tell: Tell<'_>,
    ) -> anyhow::Result<()> {
        tell(Progress::begun("comparing"));
        let compared = if present.exists() {
            db::compare(present, restored)
                .map_err(|e| format!("the present database cannot be compared: {e}"))
        } else {
            Err(format!("there is no database at {} to compare with", present.display()))
        };
        match compared {
            Ok(differences) => {
                self.said.extend(undone::lines(&differences, &carried));
                self.warnings.extend(undone::warnings(&differences));
                self.differences = Some(differences);
            }
            Err(why) => {
                self.said.push(why);
                self.warnings.push(undone::blind(&db::open_tokens(restored)?));
            }
        }
        self.carried = carried;
        Ok(())
    }
}

/// The restore itself, for the audit of the restored database.
fn audit_entry(order: &Order, now_ms: i64) -> AuditRecord {
    let uid = os::process::real_uid();
    let account = os::account::by_uid(uid).ok().flatten();
    let mut detail = serde_json::Map::new();
    detail.insert("backup".to_owned(), order.backup.display().to_string().into());
    if let Ok(Manifest { made_at_ms, commit, last_job, .. }) = backup::read_manifest(&order.backup) {
        detail.insert("made_at".to_owned(), api::Time { ms: made_at_ms }.to_millis().into());
        detail.insert("commit".to_owned(), commit.into());
        detail.insert("last_job".to_owned(), last_job.into());
    }
    if let Ok(sudoer) = std::env::var("SUDO_USER") {
        detail.insert("sudo_user".to_owned(), sudoer.into());
    }
    AuditRecord {
        number: 0, // the next one
        at_ms: now_ms,
        user: account.map_or_else(|| format!("uid {uid}"), |account| account.name),
        token: String::new(),
        role: String::new(),
        from: "local".to_owned(),
        via: concat!("central-server ", env!("CARGO_PKG_VERSION")).to_owned(),
        action: "server.restore".to_owned(),
        object: "server".to_owned(),
        detail,
        reason: None,
        refusal: None,
    }
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

/// Learns from the database that is to be replaced what it still tells; whether that is all that it knew.
fn look_at_replaced(path: &Path, epoch_min: Option<u64>, report: &mut Report) -> (Since, bool) {
    let nothing = Since { epoch: epoch_min, last_job: None, forward: None };
    if !path.exists() {
        return (nothing, false);
    }
    match db::fold(path) {
        Ok(contents) => {
            report.said.push(format!(
                "the replaced database was in epoch {}, at commit {}, with jobs up to {}",
                contents.identity.epoch, contents.commit, contents.last_job
            ));
            let since = Since {
                epoch: epoch_min.max(Some(contents.identity.epoch)),
                last_job: Some(contents.last_job),
                forward: report.look_forward(path),
            };
            (since, true)
        }
        Err(e) => {
            report.said.push(format!("the replaced database cannot be read ({e}); it is kept as it is"));
            (nothing, false)
        }
    }
}

/// Gives the database another name under which it stays. One that is whole in its file keeps its own name too, until the restored one takes it: a restore
/// that is killed in between finds it again, and what it says of who was shut out. Otherwise it is moved with its log. `None` if there is none.
fn set_aside(path: &Path, now_ms: i64, is_whole: bool) -> anyhow::Result<Option<PathBuf>> {
    let stamp = api::Time { ms: now_ms }.to_millis().replace([' ', ':', '.'], "-");
    let named = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = named(&format!(".replaced-{stamp}"));
    if is_whole && std::fs::hard_link(path, &aside).is_ok() {
        sync_folder(path)?;
        return Ok(Some(aside));
    }
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
mod tests;
