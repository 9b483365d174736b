//! Where the files are that were kept of jobs, from the agent's word to the last object.

use super::super::{Database, Entry, FileChange, FileCount, FileRecord, FileWord, Place};
use super::{job, run, run_id};
use job::{JobId, RunId, Status};
use scheduler::{Change, KeptFile};

/// Runs and jobs of this suite.
const RUN: u128 = 40_000;
const JOB: u64 = 400;
/// No pause is longer.
const PAUSE_MS_MAX: i64 = 1_000;

fn kept(n: u128, name: &str, agent: &str) -> KeptFile {
    KeptFile {
        run: run_id(RUN + n),
        name: name.into(),
        job: JobId(JOB + u64::try_from(n).unwrap()),
        agent: agent.into(),
        bytes: 10,
        sha256: vec![7; 32],
        kept_at_ms: Some(5),
    }
}

fn record(file: KeptFile, place: Place) -> FileRecord {
    FileRecord { file, place, at_ms: 0, key: None, reason: None, tries: 0, queue: Some("default".into()) }
}

/// Twice, as a commit that was tried again.
fn write(db: &impl Database, change: FileChange) {
    for _ in 0..2 {
        db.commit_with(&[], &[Entry::File(change.clone())]).unwrap();
    }
}

fn stored(n: u128, name: &str, at_ms: i64) -> FileChange {
    FileChange::Stored { run: run_id(RUN + n), name: name.into(), key: format!("{n}/{name}"), at_ms }
}

fn due(db: &impl Database, agent: &str, now_ms: i64) -> Vec<String> {
    let due = db.files_due(agent, now_ms, PAUSE_MS_MAX, 99).unwrap();
    due.into_iter().map(|record| record.file.name).collect()
}

fn count(db: &impl Database, place: Place) -> FileCount {
    db.file_counts().unwrap()[place as usize]
}

fn place_of(db: &impl Database, n: u128, name: &str) -> FileRecord {
    let files = db.files(run_id(RUN + n)).unwrap();
    files.into_iter().find(|record| record.file.name == name).unwrap()
}

pub(super) fn a_file_is_awaited_until_it_is_stored_and_its_agent_is_told_when_all_of_its_run_are<
    D: Database,
>(
    open: &impl Fn() -> D,
) {
    let db = open();
    let jobs = (0..5u64).map(|n| Change::JobInserted(job(JOB + n, "files", Status::Completed)));
    let runs = (0..5u128)
        .map(|n| Change::RunInserted(run(RUN + n, JOB + u64::try_from(n).unwrap(), Status::Completed)));
    db.commit(&jobs.chain(runs).collect::<Vec<_>>()).unwrap();
    let files = [kept(0, "b", "x"), kept(0, "../a", "x"), kept(1, "c", "y"), kept(0, "b", "x")];
    db.commit(&files.clone().map(Change::FileKept)).unwrap();
    drop(db);
    let db = open();
    let [b, a, ..] = files;
    assert_eq!(
        db.files(run_id(RUN)).unwrap(),
        [record(a.clone(), Place::Agent), record(b, Place::Agent)],
        "by name, and each once"
    );
    assert_eq!(db.files_awaited_from().unwrap(), ["x", "y"]);
    assert_eq!((due(&db, "x", 0).len(), due(&db, "y", 0), due(&db, "z", 0)), (2, vec!["c".into()], vec![]));
    assert_eq!(count(&db, Place::Agent), FileCount { files: 3, bytes: 30 });
    write(&db, stored(0, "../a", 7));
    let expected = FileRecord { at_ms: 7, key: Some("0/../a".into()), ..record(a, Place::Stored) };
    assert_eq!(place_of(&db, 0, "../a"), expected);
    assert_eq!((due(&db, "x", 0), db.file_words_to().unwrap()), (vec!["b".to_owned()], vec![]));
    write(&db, stored(0, "b", 8));
    drop(db);
    let db = open();
    assert_eq!(
        (db.files_awaited_from().unwrap(), db.file_words_to().unwrap()),
        (vec!["y".to_owned()], vec!["x".to_owned()])
    );
    assert_eq!(db.file_words("x", 9).unwrap(), [FileWord { run: run_id(RUN), files: 2 }]);
    write(&db, FileChange::Told(run_id(RUN)));
    assert_eq!(db.file_words_to().unwrap(), [""; 0]);
    assert_eq!(count(&db, Place::Stored), FileCount { files: 2, bytes: 20 });
}

pub(super) fn a_file_that_cannot_be_fetched_waits_and_one_that_never_will_be_is_lost<D: Database>(
    open: &impl Fn() -> D,
) {
    let db = open();
    let (run, name) = (run_id(RUN + 1), "c".to_owned());
    let delayed =
        FileChange::Delayed { run, name: name.clone(), reason: "busy".into(), tries: 3, next_at_ms: 500 };
    write(&db, delayed);
    assert_eq!((due(&db, "y", 499), due(&db, "y", 500)), (vec![], vec!["c".to_owned()]));
    assert_eq!(due(&db, "y", -PAUSE_MS_MAX), ["c"], "the clock was set back");
    let waiting = place_of(&db, 1, "c");
    assert_eq!((waiting.place, waiting.tries, waiting.reason.as_deref()), (Place::Agent, 3, Some("busy")));
    write(&db, FileChange::Lost { run, name: name.clone(), reason: "it is gone".into(), at_ms: 9 });
    let lost = place_of(&db, 1, "c");
    assert_eq!((lost.place, lost.at_ms, lost.reason.as_deref()), (Place::Lost, 9, Some("it is gone")));
    assert_eq!(
        db.file_words("y", 9).unwrap(),
        [FileWord { run, files: 1 }],
        "its agent need not keep the others"
    );
    write(&db, FileChange::Told(run));
    write(&db, stored(1, "c", 10));
    assert_eq!(place_of(&db, 1, "c").place, Place::Stored, "the store turned out to have it");
    assert_eq!(db.file_words_to().unwrap(), ["y"], "and its agent is told once more");
    write(&db, FileChange::Told(run));
}

pub(super) fn what_the_store_lost_is_awaited_again_and_what_retention_took_is_not<D: Database>(
    open: &impl Fn() -> D,
) {
    let db = open();
    let (run, name) = (run_id(RUN), "b".to_owned());
    write(&db, FileChange::Missing { run, name: name.clone(), reason: "nobody knows".into(), at_ms: 20 });
    let missing = place_of(&db, 0, "b");
    assert_eq!((missing.place, missing.at_ms, missing.key), (Place::Agent, 20, None));
    assert_eq!(due(&db, "x", 0), ["b"]);
    write(&db, stored(0, "b", 21));
    write(&db, FileChange::Told(run));
    let oldest: Vec<_> = db.files_oldest(9).unwrap().into_iter().map(|record| record.file.name).collect();
    assert_eq!(oldest, ["../a", "c", "b"]);
    write(&db, FileChange::Removed { run, name: "../a".into(), reason: "files_age".into(), at_ms: 30 });
    let removed = place_of(&db, 0, "../a");
    assert_eq!((removed.place, removed.at_ms, removed.key), (Place::Removed, 30, None));
    assert_eq!(
        (db.files_awaited_from().unwrap(), db.file_objects_gone(9).unwrap()),
        (vec![], vec!["0/../a".to_owned()])
    );
    let all = (RunId::new(0, 0), String::new());
    let listed: Vec<_> =
        db.files_stored_after(&all, 9).unwrap().into_iter().map(|record| record.file.name).collect();
    assert_eq!(listed, ["b", "c"]);
    assert_eq!(db.files_stored_after(&(run, name), 9).unwrap().len(), 1);
    write(&db, FileChange::ObjectDeleted("0/../a".into()));
    assert_eq!(db.file_objects_gone(9).unwrap(), [""; 0]);
}

pub(super) fn what_nothing_names_any_more_is_to_be_deleted<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    db.commit(&[Change::FileKept(kept(2, "d", "x")), Change::FileKept(kept(2, "e", "x"))]).unwrap();
    write(&db, stored(2, "d", 40));
    db.commit(&[Change::JobDeleted(JobId(JOB + 2))]).unwrap();
    assert_eq!(db.files(run_id(RUN + 2)).unwrap(), []);
    assert_eq!(
        (db.file_objects_gone(9).unwrap(), db.file_words_to().unwrap()),
        (vec!["2/d".to_owned()], vec![])
    );
    write(&db, stored(2, "e", 41));
    assert_eq!(db.file_objects_gone(9).unwrap(), ["2/d", "2/e"], "it came when its job was deleted already");
    db.commit(&[Change::FileKept(kept(3, "f", "x"))]).unwrap();
    write(&db, FileChange::Stored { run: run_id(RUN + 3), name: "f".into(), key: "2/d".into(), at_ms: 42 });
    assert_eq!(db.file_objects_gone(9).unwrap(), ["2/e"], "one that is named again stays");
    let findings = db.check(&|_| {}).unwrap().findings;
    assert!(findings.iter().all(|finding| !finding.what.contains("file \"")), "{findings:?}");
    let jobs = [0, 1, 3, 4].map(|n| Change::JobDeleted(JobId(JOB + n)));
    db.commit(&jobs).unwrap();
    assert_eq!(db.file_objects_gone(9).unwrap(), ["0/b", "1/c", "2/d", "2/e"]);
    assert_eq!(db.file_counts().unwrap(), [FileCount::default(); 4]);
}

pub(super) fn a_store_is_known_by_the_databases_first_id_and_its_address<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    let claim = db.store_claim().unwrap();
    assert_eq!((claim.id, claim.url), (db.identity().database_id, None));
    write(&db, FileChange::Claimed("file:///x".into()));
    write(&db, FileChange::Claimed("file:///y".into()));
    drop(db);
    assert_eq!(open().store_claim().unwrap().url.as_deref(), Some("file:///y"));
}
