use super::*;
use crate::db::{
    AgentSecrets, AnswerKey, AnswerRecord, AuditFilter, AuditRecord, Checked, Database, DbError, Entry,
    Expired, FileCount, FileRecord, FileWord, Identity, JobFilter, Journal, Keep, Piece, Place, Sqlite,
    StoreClaim, TokenRecord, UserRecord, Walk,
};
use crate::operation::Tell;
use crate::retention::Jobs;
use job::{End, JobId, Outcome, RunId, Status, Witness};
use prost::Message;
use protocol::message::{Accepted, Ended, Fact, FactBody, Started};
use scheduler::{
    AgentRecord, Change, Connected, Counts, EventFilter, EventKind, EventRecord, FactIn, FactRecord, Input,
    JobRecord, JobSpec, NewAgent, Rejection, RunRecord, Snapshot,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Long enough for anything that happens at all.
const DEADLINE: Duration = Duration::from_secs(30);

/// SQLite that can be told to fail its commits.
struct Fragile {
    inner: Sqlite,
    broken: AtomicBool,
}

impl Database for Fragile {
    fn commit_with(&self, batch: &[Change], entries: &[Entry]) -> Result<u64, DbError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(DbError::Retry("disk full".into()));
        }
        self.inner.commit_with(batch, entries)
    }
    fn identity(&self) -> Identity {
        self.inner.identity()
    }
    fn ancestors(&self) -> Result<Vec<[u8; 16]>, DbError> {
        self.inner.ancestors()
    }
    fn schema(&self) -> Result<u32, DbError> {
        self.inner.schema()
    }
    fn copy_to(&self, to: &std::path::Path, tell: Tell<'_>) -> Result<(), DbError> {
        self.inner.copy_to(to, tell)
    }
    fn check(&self, tell: Tell<'_>) -> Result<Checked, DbError> {
        self.inner.check(tell)
    }
    fn stray_runs(&self, limit: usize) -> Result<Vec<(RunId, String)>, DbError> {
        self.inner.stray_runs(limit)
    }
    fn commit_number(&self) -> u64 {
        self.inner.commit_number()
    }
    fn raise_epoch(&self, seen: u64) -> Result<u64, DbError> {
        self.inner.raise_epoch(seen)
    }
    fn load(&self) -> Result<Snapshot, DbError> {
        self.inner.load()
    }
    fn job(&self, job: JobId) -> Result<Option<JobRecord>, DbError> {
        self.inner.job(job)
    }
    fn runs(&self, job: JobId) -> Result<Vec<RunRecord>, DbError> {
        self.inner.runs(job)
    }
    fn run(&self, run: RunId) -> Result<Option<RunRecord>, DbError> {
        self.inner.run(run)
    }
    fn jobs(
        &self,
        filter: &JobFilter,
        cursor: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<JobRecord>, DbError> {
        self.inner.jobs(filter, cursor, limit)
    }
    fn expired(&self, expired: &Expired) -> Result<Vec<JobId>, DbError> {
        self.inner.expired(expired)
    }
    fn job_of_key(&self, key: &str) -> Result<Option<JobId>, DbError> {
        self.inner.job_of_key(key)
    }
    fn counts(&self) -> Result<Counts, DbError> {
        self.inner.counts()
    }
    fn facts(&self, run: RunId) -> Result<Vec<FactRecord>, DbError> {
        self.inner.facts(run)
    }
    fn stray_seq(&self, run: RunId) -> Result<u64, DbError> {
        self.inner.stray_seq(run)
    }
    fn events(&self, filter: &EventFilter, from: Walk, limit: usize) -> Result<Piece<EventRecord>, DbError> {
        self.inner.events(filter, from, limit)
    }
    fn events_kept(&self) -> Result<Option<(u64, u64)>, DbError> {
        self.inner.events_kept()
    }
    fn strays(&self) -> Result<u64, DbError> {
        self.inner.strays()
    }
    fn secrets(&self) -> Result<Vec<AgentSecrets>, DbError> {
        self.inner.secrets()
    }
    fn tokens(&self) -> Result<Vec<TokenRecord>, DbError> {
        self.inner.tokens()
    }
    fn users(&self) -> Result<Vec<UserRecord>, DbError> {
        self.inner.users()
    }
    fn audit(&self, filter: &AuditFilter, from: Walk, limit: usize) -> Result<Piece<AuditRecord>, DbError> {
        self.inner.audit(filter, from, limit)
    }
    fn last_audit(&self) -> Result<u64, DbError> {
        self.inner.last_audit()
    }
    fn answer(&self, key: &AnswerKey) -> Result<Option<AnswerRecord>, DbError> {
        self.inner.answer(key)
    }
    fn forget(&self, journal: Journal, keep: Keep) -> Result<bool, DbError> {
        self.inner.forget(journal, keep)
    }
    fn files(&self, run: RunId) -> Result<Vec<FileRecord>, DbError> {
        self.inner.files(run)
    }
    fn files_awaited_from(&self) -> Result<Vec<String>, DbError> {
        self.inner.files_awaited_from()
    }
    fn files_due(
        &self,
        agent: &str,
        now_ms: i64,
        pause_ms_max: i64,
        limit: usize,
    ) -> Result<Vec<FileRecord>, DbError> {
        self.inner.files_due(agent, now_ms, pause_ms_max, limit)
    }
    fn file_words_to(&self) -> Result<Vec<String>, DbError> {
        self.inner.file_words_to()
    }
    fn file_words(&self, agent: &str, limit: usize) -> Result<Vec<FileWord>, DbError> {
        self.inner.file_words(agent, limit)
    }
    fn files_oldest(&self, limit: usize) -> Result<Vec<FileRecord>, DbError> {
        self.inner.files_oldest(limit)
    }
    fn files_stored_after(&self, after: &(RunId, String), limit: usize) -> Result<Vec<FileRecord>, DbError> {
        self.inner.files_stored_after(after, limit)
    }
    fn file_objects_gone(&self, limit: usize) -> Result<Vec<String>, DbError> {
        self.inner.file_objects_gone(limit)
    }
    fn file_counts(&self) -> Result<[FileCount; Place::ALL.len()], DbError> {
        self.inner.file_counts()
    }
    fn store_claim(&self) -> Result<StoreClaim, DbError> {
        self.inner.store_claim()
    }
}

struct Nobody;

impl Roster for Nobody {
    fn on_added(&self, _: &AgentRecord, _: &[u8]) {}
    fn on_secret(&self, _: &str, _: &[u8]) {}
    fn on_retired(&self, _: &str) {}
    fn on_removed(&self, _: &str) {}
}

/// A core with its database.
struct Lab {
    db: Arc<Fragile>,
    handle: Handle,
    thread: std::thread::JoinHandle<()>,
}

impl Lab {
    fn new(dir: &Path) -> Lab {
        let inner = Sqlite::open(&dir.join("server.db")).unwrap();
        let db = Arc::new(Fragile { inner, broken: AtomicBool::new(false) });
        let seed = [u8::try_from(db.identity().epoch % 200).unwrap(); 32];
        let (handle, thread) = spawn(Arc::clone(&db) as Arc<dyn Database>, Box::new(Nobody), seed).unwrap();
        Lab { db, handle, thread }
    }

    async fn with_agent(dir: &Path) -> Lab {
        let lab = Lab::new(dir);
        let agent = NewAgent {
            name: "a".into(),
            slots: 2,
            dial: None,
            secret: vec![1; 32],
            queues: vec!["default".into()],
        };
        lab.handle.add_agent(agent).await.unwrap();
        lab
    }

    async fn stop(self) {
        self.handle.stop().await;
        self.thread.join().unwrap();
    }

    async fn connect(&self, session: u64, room: usize) -> mpsc::Receiver<ToAgent> {
        let (port, orders) = mpsc::channel(room);
        let connected = Connected { agent: "a".into(), session, ..Connected::default() };
        self.handle.connected(connected, port).await.unwrap();
        orders
    }

    async fn submit(&self) -> JobId {
        self.handle.submit(vec![spec()]).await.unwrap()[0].job
    }

    async fn say(&self, run: RunId, bodies: &[FactBody]) {
        let fact =
            |(seq, body): (u64, &FactBody)| FactIn::new(run, seq, Fact::new(5, body.clone()).encode_to_vec());
        let facts = (1..).zip(bodies).map(fact).collect();
        self.handle.tell(Input::Facts { agent: "a".into(), facts }).await.unwrap();
    }
}

fn spec() -> JobSpec {
    JobSpec {
        queue: "default".into(),
        command: vec![b"/bin/true".to_vec()],
        submitted_by: "me".into(),
        ..JobSpec::default()
    }
}

fn whole_life() -> [FactBody; 3] {
    let end = End::Exited { code: 3 };
    let outcome = Outcome::Ended { end, cause: None, witness: Witness::JobProcessor, usage: None };
    [
        FactBody::Accepted(Accepted::default()),
        FactBody::Started(Started::default()),
        FactBody::Ended(Ended::from(&outcome)),
    ]
}

async fn next(orders: &mut mpsc::Receiver<ToAgent>) -> Option<ToAgent> {
    tokio::time::timeout(DEADLINE, orders.recv()).await.expect("comes in time")
}

async fn next_start(orders: &mut mpsc::Receiver<ToAgent>) -> RunId {
    loop {
        match next(orders).await {
            Some(ToAgent::Start { run, .. }) => return run,
            Some(ToAgent::Hello { .. } | ToAgent::Acks { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("holds in time");
}

#[tokio::test]
async fn a_job_goes_from_its_submission_to_its_acknowledged_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with_agent(dir.path()).await;
    let mut orders = lab.connect(1, 100).await;
    assert!(matches!(next(&mut orders).await, Some(ToAgent::Hello { .. })));
    let job = lab.submit().await;
    assert_eq!(
        lab.db.job(job).unwrap().unwrap().status,
        Status::Dispatched,
        "committed before it was answered"
    );
    let run = next_start(&mut orders).await;
    assert!(!lab.handle.wait_final(job, Duration::ZERO).await.unwrap());
    let watch = tokio::spawn({
        let handle = lab.handle.clone();
        async move { handle.wait_final(job, DEADLINE).await.unwrap() }
    });
    lab.say(run, &whole_life()).await;
    let Some(ToAgent::Acks { acks, commit }) = next(&mut orders).await else { panic!("no acknowledgement") };
    assert_eq!(acks, [(run, 3)]);
    assert!(commit <= lab.db.commit_number() && lab.db.facts(run).unwrap().len() == 3);
    assert!(watch.await.unwrap());
    assert_eq!(lab.db.job(job).unwrap().unwrap().exit_code, Some(3));
    assert_eq!(lab.handle.counts().of(Status::Error), 1);
    assert!(lab.handle.wait_final(job, Duration::ZERO).await.unwrap(), "also when it is over already");
    assert!(lab.handle.why(job).await.unwrap().contains("it is over, Error"));
    assert!(matches!(
        lab.handle.kill(job, "me", None).await,
        Err(CoreError::Rejected(Rejection::AlreadyFinal { status: Status::Error, .. }))
    ));
    lab.stop().await;
}

#[tokio::test]
async fn nothing_is_told_or_answered_while_the_database_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with_agent(dir.path()).await;
    let mut orders = lab.connect(1, 100).await;
    assert!(matches!(next(&mut orders).await, Some(ToAgent::Hello { .. })));
    lab.db.broken.store(true, Ordering::SeqCst);
    let submitted = tokio::spawn({
        let handle = lab.handle.clone();
        async move { handle.submit(vec![spec()]).await.unwrap()[0].job }
    });
    until(|| !lab.handle.health().is_ready()).await;
    assert!(lab.handle.health().problems[0].contains("disk full"));
    assert!(orders.try_recv().is_err() && !submitted.is_finished());
    let why = lab.handle.why(JobId(1)).await.unwrap();
    assert!(why.contains("database cannot be written") && why.contains("disk full"), "{why}");
    lab.db.broken.store(false, Ordering::SeqCst);
    let job = submitted.await.unwrap();
    next_start(&mut orders).await;
    assert!(lab.handle.health().is_ready());
    assert_eq!(lab.db.job(job).unwrap().unwrap().status, Status::Dispatched);
    lab.stop().await;
}

#[tokio::test]
async fn after_a_restart_what_was_not_accepted_is_ordered_again() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with_agent(dir.path()).await;
    let mut orders = lab.connect(1, 100).await;
    let job = lab.submit().await;
    let run = next_start(&mut orders).await;
    lab.stop().await;
    while let Some(order) = next(&mut orders).await {
        assert!(matches!(order, ToAgent::Close { stopping: true, .. }), "{order:?}");
    }
    let lab = Lab::new(dir.path());
    let mut orders = lab.connect(1, 100).await;
    assert_eq!(next_start(&mut orders).await, run);
    lab.say(run, &whole_life()).await;
    assert!(lab.handle.wait_final(job, DEADLINE).await.unwrap());
    lab.say(run, &whole_life()).await;
    lab.say(RunId::new(1, 1), &whole_life()[..1]).await;
    let status = lab.handle.status().await.unwrap();
    assert_eq!((status.strays, status.agents, status.agents_connected), (1, 1, 1));
    assert_eq!(lab.db.facts(run).unwrap().len(), 3);
    lab.stop().await;
}

#[tokio::test]
async fn a_newer_session_takes_the_place_of_the_older() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with_agent(dir.path()).await;
    let mut older = lab.connect(1, 100).await;
    let mut newer = lab.connect(2, 100).await;
    assert!(matches!(next(&mut older).await, Some(ToAgent::Hello { .. })));
    assert_eq!(next(&mut older).await, None, "the older is let go");
    let gone = Input::AgentDisconnected { agent: "a".into(), session: 1, stopping: false };
    lab.handle.tell(gone).await.unwrap();
    lab.submit().await;
    next_start(&mut newer).await;
    assert!(lab.handle.agent("a").await.unwrap().connected);
    lab.stop().await;
}

#[tokio::test]
async fn a_session_that_does_not_take_its_orders_is_let_go_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with_agent(dir.path()).await;
    let mut stuck = lab.connect(1, 1).await;
    lab.submit().await; // no room: its greeting is not taken
    assert!(matches!(next(&mut stuck).await, Some(ToAgent::Hello { .. })));
    assert_eq!(next(&mut stuck).await, None);
    let mut orders = lab.connect(2, 100).await;
    next_start(&mut orders).await;
    lab.stop().await;
}

#[tokio::test]
async fn the_same_key_finds_its_job_also_when_that_is_over_and_the_server_was_started_anew() {
    let dir = tempfile::tempdir().unwrap();
    let keyed = || vec![JobSpec { idempotency_key: Some("k".into()), ..spec() }];
    let lab = Lab::new(dir.path());
    let job = lab.handle.submit(keyed()).await.unwrap()[0].job;
    lab.handle.kill(job, "me", None).await.unwrap();
    lab.stop().await;
    let lab = Lab::new(dir.path());
    let again = lab.handle.submit(keyed()).await.unwrap()[0];
    assert_eq!((again.job, again.existing), (job, true));
    let other = vec![JobSpec { priority: 1, ..keyed().remove(0) }];
    let refused = lab.handle.submit(other).await;
    assert!(matches!(refused, Err(CoreError::Rejected(Rejection::KeyReused { .. }))), "{refused:?}");
    lab.stop().await;
}

/// What agents say piles up while the database is slow: steps of nothing but facts are written while the next ones are decided.
#[tokio::test]
async fn facts_that_are_decided_while_others_are_written_are_acknowledged_when_they_are_committed_and_no_earlier()
 {
    const JOBS: usize = 2_500;
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with_agent(dir.path()).await;
    lab.handle.set_slots("a", u32::try_from(JOBS).unwrap()).await.unwrap();
    let mut orders = lab.connect(1, 100_000).await;
    lab.handle.submit(vec![spec(); JOBS]).await.unwrap();
    let mut runs = Vec::with_capacity(JOBS);
    while runs.len() < JOBS {
        runs.push(next_start(&mut orders).await);
    }
    let life = whole_life().map(|body| Fact::new(5, body).encode_to_vec());
    let commits = lab.db.commit_number();
    let told = tokio::spawn({
        let (handle, runs) = (lab.handle.clone(), runs.clone());
        async move {
            // The third message of a run comes some hundred runs after its first, and every seventh comes again at once, every other later.
            for n in 0..JOBS + 2 * LAG {
                for (seq, bytes) in (1..).zip(&life) {
                    let Some(run) = n.checked_sub((seq - 1) * LAG).and_then(|n| runs.get(n)) else {
                        continue;
                    };
                    let fact = FactIn::new(*run, seq as u64, bytes.clone());
                    let again = n.is_multiple_of(7).then(|| fact.clone());
                    let facts = std::iter::once(fact).chain(again).collect();
                    handle.tell(Input::Facts { agent: "a".into(), facts }).await.unwrap();
                }
            }
            for run in runs.iter().step_by(2) {
                let facts =
                    (1..).zip(&life).map(|(seq, bytes)| FactIn::new(*run, seq, bytes.clone())).collect();
                handle.tell(Input::Facts { agent: "a".into(), facts }).await.unwrap();
            }
        }
    });
    let mut acked = std::collections::HashMap::new();
    while runs.iter().any(|run| acked.get(run) != Some(&3)) {
        let Some(ToAgent::Acks { acks, commit }) = next(&mut orders).await else {
            panic!("the session ended")
        };
        assert!(commit <= lab.db.commit_number());
        for (run, seq) in acks {
            assert!(lab.db.facts(run).unwrap().len() as u64 >= seq, "acknowledged before it was committed");
            acked.insert(run, seq);
        }
    }
    told.await.unwrap();
    let status = lab.handle.status().await.unwrap(); // behind everything that was told
    assert_eq!((status.strays, lab.handle.counts().of(Status::Error)), (0, JOBS as u64));
    assert!(lab.db.commit_number() > commits + 2, "in several steps");
    assert!(runs.iter().all(|run| lab.db.facts(*run).unwrap().len() == 3));
    assert_eq!(lab.db.check(&|_| {}).unwrap().findings, []);
    assert_eq!(lab.db.counts().unwrap(), lab.handle.counts());
    lab.stop().await;
}

/// So many messages are between two of the same run.
const LAG: usize = 300;

#[tokio::test]
async fn many_requests_at_once_share_commits_and_are_all_answered() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path());
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let handle = lab.handle.clone();
            tokio::spawn(async move { handle.submit(vec![spec()]).await.unwrap()[0].job.0 })
        })
        .collect();
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.push(task.await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>());
    assert_eq!(lab.handle.counts().of(Status::Queued), 200);
    lab.stop().await;
}

#[tokio::test]
async fn old_jobs_are_deleted_once_their_agent_has_told_everything_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with_agent(dir.path()).await;
    let db = Arc::clone(&lab.db) as Arc<dyn Database>;
    let mut orders = lab.connect(1, 100).await;
    let (old, active) = (lab.submit().await, lab.submit().await);
    let run = next_start(&mut orders).await;
    let other = next_start(&mut orders).await;
    let waiting = lab.submit().await;
    lab.say(run, &whole_life()).await;
    assert!(lab.handle.wait_final(old, DEADLINE).await.unwrap());
    lab.say(other, &whole_life()[..2]).await;
    until(|| db.job(active).unwrap().unwrap().status == Status::Running).await;

    let rule = Jobs { age: Duration::from_secs(60), count_max: 0 };
    let now_ms = os::clock::wall_ms();
    let later_ms = now_ms + 3_600_000;
    assert_eq!(rule.piece(&lab.handle, &db, now_ms).await.unwrap(), 0, "too young");
    let gone = Input::AgentDisconnected { agent: "a".into(), session: 1, stopping: false };
    lab.handle.tell(gone).await.unwrap();
    assert_eq!(rule.piece(&lab.handle, &db, later_ms).await.unwrap(), 0, "who is away may have more to tell");
    let _orders = lab.connect(2, 100).await;
    let by_count = Jobs { age: Duration::ZERO, count_max: 1 };
    assert_eq!(by_count.piece(&lab.handle, &db, later_ms).await.unwrap(), 0, "not too many");

    // What was chosen and is not over when its turn comes stays.
    lab.handle.forget(vec![active, waiting, JobId(99)]).await.unwrap();
    assert!(db.job(active).unwrap().is_some() && db.job(waiting).unwrap().is_some());
    let before = lab.handle.counts();
    assert_eq!(rule.piece(&lab.handle, &db, later_ms).await.unwrap(), 1);
    assert_eq!(db.job(old).unwrap(), None);
    assert_eq!((db.runs(old).unwrap(), db.facts(run).unwrap()), (vec![], vec![]));
    assert_eq!(lab.handle.counts().of(Status::Error) + 1, before.of(Status::Error));
    assert_eq!(lab.handle.counts(), db.counts().unwrap());
    assert_eq!(rule.piece(&lab.handle, &db, later_ms).await.unwrap(), 0, "that was all");
    assert!(matches!(lab.handle.why(old).await, Err(CoreError::Rejected(Rejection::NoSuchJob(_)))));
    lab.say(other, &whole_life()).await;
    assert!(lab.handle.wait_final(active, DEADLINE).await.unwrap());
    assert_eq!(db.check(&|_| {}).unwrap().findings, []);
    drop(db);
    lab.stop().await;
    let lab = Lab::new(dir.path());
    assert_eq!(lab.submit().await, JobId(waiting.0 + 1), "no number is given twice");
    lab.stop().await;
}

#[tokio::test]
async fn a_restart_and_a_deletion_in_the_same_step_leave_the_job_there() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::with_agent(dir.path()).await;
    let mut orders = lab.connect(1, 100).await;
    let job = lab.submit().await;
    let run = next_start(&mut orders).await;
    lab.say(run, &whole_life()).await;
    assert!(lab.handle.wait_final(job, DEADLINE).await.unwrap());
    let restart =
        scheduler::Restart { job, by: "me".into(), hold: true, force: true, reason: Some("again".into()) };
    // The deletion first: it is decided last in its step, and finds the job begun again.
    lab.db.broken.store(true, Ordering::SeqCst);
    let first = tokio::spawn({
        let handle = lab.handle.clone();
        async move { handle.create_queue("q").await }
    });
    until(|| !lab.handle.health().is_ready()).await;
    let forget = tokio::spawn({
        let handle = lab.handle.clone();
        async move { handle.forget(vec![job]).await }
    });
    tokio::task::yield_now().await;
    let (reply, answer) = tokio::sync::oneshot::channel();
    let task = super::command::Task::Engine(Input::RestartJob(restart));
    lab.handle.send(super::command::Command::Do { task, order: None, reply }).await.unwrap();
    lab.db.broken.store(false, Ordering::SeqCst);
    first.await.unwrap().unwrap();
    forget.await.unwrap().unwrap();
    answer.await.unwrap().unwrap();
    assert_eq!(lab.db.job(job).unwrap().unwrap().status, Status::Held);
    assert_eq!(lab.db.facts(run).unwrap().len(), 3);
    lab.stop().await;
}

#[tokio::test]
async fn a_disk_that_is_low_and_has_room_again_is_told_once_each() {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::new(dir.path());
    let waiting = lab.submit().await;
    for trouble in [Some("1 MiB free"), Some("0 MiB free"), None, None] {
        lab.handle.on_disk(trouble.map(str::to_owned));
        assert_eq!(lab.handle.health().is_ready(), trouble.is_none());
        assert_eq!(lab.handle.submit(vec![]).await.is_ok(), trouble.is_none());
        let why = lab.handle.why(waiting).await.unwrap();
        assert!(why.starts_with("no process server is attached to queue \"default\""), "{why}");
        assert_eq!(
            trouble.is_some_and(|trouble| why.ends_with(&format!("not ready: {trouble}"))),
            trouble.is_some()
        );
    }
    let told = || {
        let events = lab.db.events(&EventFilter::default(), Walk::After(0), 100).unwrap().items;
        let of_disk = events.into_iter().filter(|event| event.event.kind.family() == "disk");
        of_disk.map(|event| (event.event.kind, event.event.text)).collect::<Vec<_>>()
    };
    until(|| told().len() == 2).await;
    assert_eq!(told()[0], (EventKind::DiskLow, "1 MiB free".to_owned()));
    assert_eq!(told()[1].0, EventKind::DiskEnough);
    lab.stop().await;
}
