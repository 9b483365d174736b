use super::super::conformance::{conformance, event, fact, full_job, full_run};
use super::*;
use job::Status;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn sqlite_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance(|| Sqlite::open(&dir.path().join("server.db")).unwrap());
}

#[test]
fn two_openings_at_once_are_refused_however_the_path_is_spelled() {
    let dir = tempfile::tempdir().unwrap();
    let first = Sqlite::open(&dir.path().join("server.db")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("server.db"), dir.path().join("other.db")).unwrap();
    std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
    for spelled in ["./server.db", "again/server.db", "other.db"] {
        let text = Sqlite::open(&dir.path().join(spelled)).err().unwrap().to_string();
        assert!(text.contains("another central-server"), "{text}");
    }
    drop(first);
    Sqlite::open(&dir.path().join("other.db")).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.db");
    drop(Sqlite::open(&path).unwrap());
    let before = std::fs::read(&path).unwrap();
    let text = Sqlite::open_version(&path, Some(0)).err().unwrap().to_string();
    assert!(text.contains("schema version") && text.contains("newer version"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_file_of_another_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("theirs.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(Sqlite::open(&path).err().unwrap().to_string().contains("another program"));
    std::fs::write(dir.path().join("text.db"), "no database at all, but long enough to be read as one")
        .unwrap();
    assert!(Sqlite::open(&dir.path().join("text.db")).is_err());
}

#[test]
fn the_database_is_for_its_owners_eyes_only() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
    db.commit(&[]).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn the_disk_promises_are_those_of_full_synchronisation() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
    let pragma =
        |name: &str| lock(&db.writer).query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, String>(0));
    assert_eq!(pragma("journal_mode").unwrap(), "wal");
    let full: i64 = lock(&db.writer).query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
    assert_eq!(full, 2);
}

#[test]
fn what_a_job_goes_through_is_written_without_temporary_tables() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
    db.commit(&[]).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let trace = move |event: TraceEvent<'_>| {
        if let TraceEvent::Stmt(statement, _) = event {
            tell.send(statement.expanded_sql().unwrap()).unwrap();
        }
    };
    lock(&db.writer).trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(trace)).unwrap();
    let (job, run) = (full_job(), full_run());
    let facts = (1..=3).map(|seq| Change::FactInserted(fact(1, seq)));
    let batch = [Change::JobInserted(job.clone()), Change::RunInserted(run.clone()), Change::Event(event(1))];
    db.commit(&batch.into_iter().chain(facts).collect::<Vec<_>>()).unwrap();
    db.commit(&[Change::JobUpdated(job), Change::RunUpdated(run)]).unwrap();
    lock(&db.writer).trace_v2(TraceEventCodes::empty(), None::<fn(TraceEvent<'_>)>).unwrap();
    let statements: Vec<String> = told.try_iter().collect();
    let written = |what: &str| statements.iter().filter(|statement| statement.starts_with(what)).count();
    assert_eq!((written("INSERT INTO runs"), written("UPDATE runs")), (1, 1), "{statements:#?}");
    for statement in statements.iter().filter(|s| !s.starts_with("BEGIN") && !s.starts_with("COMMIT")) {
        let opcodes: Vec<String> = lock(&db.writer)
            .prepare(&format!("EXPLAIN {statement}"))
            .unwrap()
            .query_map([], |row| row.get(1))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(opcodes.len() > 3, "{statement}");
        assert!(!opcodes.iter().any(|opcode| opcode == "OpenEphemeral"), "{statement}: {opcodes:?}");
    }
}

#[test]
fn a_full_database_refuses_a_batch_whole_and_takes_it_later() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
    let pages = |count: i64| {
        lock(&db.writer)
            .query_row(&format!("PRAGMA max_page_count = {count}"), [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let queue = |n: i32| {
        let name = format!("{n}-{}", "x".repeat(2_000));
        Change::QueueInserted(scheduler::QueueRecord {
            name,
            held: false,
            slots: None,
            priority: 0,
            created_at_ms: 0,
        })
    };
    let batch: Vec<_> = (0..1_000).map(queue).collect();
    pages(1); // the least is what is there already
    let commit = db.commit_number();
    assert!(matches!(db.commit(&batch), Err(DbError::Retry(_))));
    assert_eq!((db.load().unwrap().queues.len(), db.commit_number()), (1, commit));
    pages(1_000_000);
    assert_eq!(db.commit(&batch).unwrap(), commit + 1);
    assert_eq!(db.load().unwrap().queues.len(), 1_001);
}

#[test]
fn what_one_question_reads_is_of_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
    let queues = |c: &Connection| one(c, "SELECT count(*) FROM queues", [], |row| Ok(row.get::<_, i64>(0)?));
    let queue = |name: &str| {
        let record = scheduler::QueueRecord {
            name: name.to_owned(),
            held: false,
            slots: None,
            priority: 0,
            created_at_ms: 0,
        };
        [Change::QueueInserted(record)]
    };
    let seen = db.read(|c| {
        let before = queues(c)?;
        db.commit(&queue("meanwhile")).unwrap();
        Ok((before, queues(c)?))
    });
    assert_eq!(seen.unwrap(), (Some(1), Some(1)));
    assert_eq!(db.read(queues).unwrap(), Some(2), "the next question sees it");
    let failed = db.read(|c| queues(c).and_then(|_| Err::<(), _>(Bad::Content("damaged".to_owned()))));
    assert!(matches!(failed, Err(DbError::Damaged(_))));
    db.commit(&queue("later")).unwrap();
    assert_eq!(db.read(queues).unwrap(), Some(3), "after a failed one too");
}

/// Run by hand: `cargo test --release -p central-server -- --ignored --nocapture a_million`.
#[test]
#[ignore = "takes minutes; prints how long lists among a million jobs take"]
fn a_million_jobs_are_listed_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let db = Sqlite::open(&dir.path().join("server.db")).unwrap();
    let statuses = [Status::Completed, Status::Error, Status::Killed];
    for part in 0..100u64 {
        let record = |n: u64| {
            let id = part * 10_000 + n + 1;
            let spec = scheduler::JobSpec {
                name: format!("name{}", id % 1_000),
                queue: if id.is_multiple_of(100_000) { "rare" } else { "default" }.into(),
                command: vec![b"/bin/true".to_vec()],
                ..scheduler::JobSpec::default()
            };
            Change::JobInserted(JobRecord {
                id: JobId(id),
                spec: std::sync::Arc::new(spec),
                submitted_at_ms: 0,
                status: if id % 50_000 == 7 {
                    statuses[2]
                } else {
                    statuses[usize::try_from(id % 2).unwrap()]
                },
                agent: Some(format!("agent{}", id % 50)),
                attempts: 1,
                run: None,
                exit_code: Some(0),
                signal: None,
                reason: None,
                started_at_ms: Some(1),
                ended_at_ms: Some(2),
                kill: None,
                refusals: 0,
                wait: None,
                tries: 0,
                previous: None,
                pause: None,
            })
        };
        db.commit(&(0..10_000).map(record).collect::<Vec<_>>()).unwrap();
    }
    let own = |text: &str| Some(text.to_owned());
    let filters = [
        JobFilter::default(),
        JobFilter { statuses: vec![Status::Killed], ..JobFilter::default() },
        JobFilter { queue: own("rare"), ..JobFilter::default() },
        JobFilter { queue: own("rare"), statuses: vec![Status::Killed], ..JobFilter::default() },
        JobFilter { queue: own("default"), statuses: vec![Status::Killed], ..JobFilter::default() },
        JobFilter { name: own("name7"), agent: own("agent8"), ..JobFilter::default() },
        JobFilter { queue: own("rare"), agent: own("agent0"), ..JobFilter::default() },
    ];
    for filter in filters {
        let began = std::time::Instant::now();
        let found = db.jobs(&filter, None, 1_000).unwrap().len();
        println!("{found} found in {:?} by {filter:?}", began.elapsed());
    }
    let began = std::time::Instant::now();
    db.load().unwrap();
    println!("loaded in {:?}", began.elapsed());
}
