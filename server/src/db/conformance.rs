//! What every database must do. The suite is run against each implementation: `open` opens the same database again each time.

mod files;
mod lists;

use super::{
    AnswerKey, AnswerRecord, AuditFilter, AuditRecord, Database, Entry, Journal, Keep, TokenRecord,
    UserRecord, Walk,
};
use job::{
    End, JobId, OnUnknown, Outcome, Policy, RestartSafe, Retry, RetryCause, RunId, Status, StopCause, Usage,
    Witness,
};
use scheduler::{
    AgentRecord, Change, Dial, Drain, Event, EventFilter, EventKind, EventRecord, FactRecord, JobRecord,
    JobSpec, KillWish, LateOutcome, Object, PauseWish, QueueRecord, Reply, RunRecord, Severity, StrayRecord,
    Trouble, Wait,
};
use std::sync::Arc;

/// Runs the whole suite, in an order in which each part builds on what those before have left. The database is new.
pub(super) fn conformance<D: Database>(open: impl Fn() -> D) {
    a_new_database_has_the_default_queue_and_nothing_else(&open);
    every_opening_begins_a_new_epoch_of_the_same_database(&open);
    an_epoch_is_raised_above_what_was_seen_and_stays_there(&open);
    a_record_comes_back_as_it_was_written(&open);
    a_batch_that_is_written_twice_is_there_once(&open);
    what_is_over_is_not_loaded(&open);
    facts_are_kept_once_in_their_order(&open);
    agents_queues_and_attachments_come_and_go(&open);
    two_secrets_are_valid_the_newest_first(&open);
    only_the_newest_secret_stays_when_the_others_are_retired(&open);
    users_and_tokens_are_kept(&open);
    the_audit_is_kept_and_found_by_who_and_what_and_when(&open);
    an_answer_is_kept_as_it_was_first_given(&open);
    lists::lists_are_filtered_and_paged(&open);
    events_are_kept_once_and_read_from_either_end(&open);
    what_a_job_waits_for_is_kept(&open);
    what_is_too_old_or_too_much_is_forgotten_but_for_the_newest(&open);
    files::a_file_is_awaited_until_it_is_stored_and_its_agent_is_told_when_all_of_its_run_are(&open);
    files::a_file_that_cannot_be_fetched_waits_and_one_that_never_will_be_is_lost(&open);
    files::what_the_store_lost_is_awaited_again_and_what_retention_took_is_not(&open);
    files::what_nothing_names_any_more_is_to_be_deleted(&open);
    files::a_store_is_known_by_the_databases_first_id_and_its_address(&open);
    lists::what_is_over_for_long_is_deleted_with_all_its_records(&open);
}

fn spec(name: &str) -> JobSpec {
    JobSpec {
        name: name.into(),
        queue: "default".into(),
        command: vec![b"/bin/true".to_vec(), vec![0xff, 0]],
        submitted_by: "me".into(),
        ..JobSpec::default()
    }
}

fn job(id: u64, name: &str, status: Status) -> JobRecord {
    JobRecord {
        id: JobId(id),
        spec: Arc::new(spec(name)),
        submitted_at_ms: 1_000,
        status,
        agent: None,
        attempts: 0,
        run: None,
        exit_code: None,
        signal: None,
        reason: None,
        started_at_ms: None,
        ended_at_ms: None,
        kill: None,
        refusals: 0,
        wait: None,
        tries: 0,
        previous: None,
        pause: None,
    }
}

pub(super) fn full_job() -> JobRecord {
    let spec = JobSpec {
        agent: Some("a".into()),
        priority: -2,
        script: Some(b"exit 7\n".to_vec()),
        env: vec![("E".into(), "1".into())],
        params: vec![("P".into(), "ü".into())],
        cwd: Some("/tmp".into()),
        user: Some("u".into()),
        timeout_ms: Some(5),
        grace_ms: Some(6),
        idempotency_key: Some("key".into()),
        held: true,
        start_at_ms: Some(4_000),
        policy: Policy {
            retry: Some(Retry {
                attempts_max: 3,
                backoff_ms: 1,
                backoff_max_ms: 2,
                factor_percent: 300,
                on: vec![RetryCause::ExitCodes(7, 8), RetryCause::Lost],
            }),
            on_unknown: OnUnknown::Restart,
            restart_safe: RestartSafe::AtLeastOnce,
        },
        ..spec("full")
    };
    JobRecord {
        spec: Arc::new(spec),
        agent: Some("a".into()),
        attempts: 2,
        run: Some(run_id(1)),
        exit_code: Some(255),
        signal: Some(64),
        reason: Some("because".into()),
        started_at_ms: Some(2_000),
        ended_at_ms: Some(-1),
        kill: Some(KillWish { by: "me".into(), grace_ms: Some(u64::from(u32::MAX)), at_ms: 3_000 }),
        refusals: 2,
        wait: Some(Wait::Retry { until_ms: 5_000 }),
        tries: 2,
        previous: Some(Status::Unknown),
        pause: Some(PauseWish { suspend: true, by: "you".into(), at_ms: 3_001 }),
        ..job(1, "full", Status::Running)
    }
}

fn run_id(n: u128) -> RunId {
    RunId::new(1_700_000_000_000, n)
}

fn run(n: u128, job: u64, status: Status) -> RunRecord {
    RunRecord {
        id: run_id(n),
        job: JobId(job),
        attempt: 1,
        agent: "a".into(),
        status,
        placed_at_ms: 10,
        accepted_at_ms: None,
        started_at_ms: None,
        ended_at_ms: None,
        exit_code: None,
        signal: None,
        core: false,
        witness: None,
        reason: None,
        usage: Usage::default(),
        acked_seq: 0,
        late: None,
    }
}

pub(super) fn full_run() -> RunRecord {
    let outcome = Outcome::Ended {
        end: End::Signaled { signal: 9, core: true },
        cause: Some(StopCause::TimedOut { timeout_ms: 4 }),
        witness: Witness::Pidfd,
        usage: Some(Usage { cpu_ms: Some(1), max_rss_kib: Some(2), ..Usage::default() }),
    };
    RunRecord {
        attempt: 2,
        accepted_at_ms: Some(11),
        started_at_ms: Some(12),
        ended_at_ms: Some(13),
        exit_code: Some(7),
        signal: Some(9),
        core: true,
        witness: Some(Witness::Monitor),
        reason: Some("why".into()),
        usage: Usage {
            cpu_ms: Some(14),
            user_ms: Some(9),
            system_ms: Some(5),
            max_rss_kib: Some(15),
            memory_peak_kib: Some(20),
            read_bytes: Some(21),
            written_bytes: Some(22),
            oom_kills: Some(23),
            context_switches: Some(24),
            processes_peak: Some(25),
        },
        acked_seq: 16,
        late: Some(LateOutcome { outcome, ended_at_ms: Some(17), received_at_ms: 18, seq: 19 }),
        ..run(1, 1, Status::Running)
    }
}

fn agent(name: &str) -> AgentRecord {
    AgentRecord {
        name: name.into(),
        slots: 100,
        dial: Some(Dial { host: "::1".into(), port: 65_535 }),
        added_at_ms: 1,
        agent_id: Some([1; 16]),
        boot_id: Some([2; 16]),
        incarnation: Some(3),
        software: "s".into(),
        platform: "p".into(),
        connected_at_ms: Some(4),
        disconnected_at_ms: Some(5),
        stopped: true,
        drain: Some(Drain { by: "me".into(), reason: "r".into(), at_ms: 6 }),
        trouble: Some(Trouble { text: "t".into(), at_ms: 7, rival_boot_id: Some([8; 16]) }),
    }
}

fn a_new_database_has_the_default_queue_and_nothing_else<D: Database>(open: &impl Fn() -> D) {
    let snapshot = open().load().unwrap();
    let queues: Vec<_> = snapshot.queues.iter().map(|q| (q.name.as_str(), q.held)).collect();
    assert_eq!(queues, [("default", false)]);
    assert!(snapshot.jobs.is_empty() && snapshot.agents.is_empty() && snapshot.attachments.is_empty());
    assert_eq!((snapshot.last_job, snapshot.last_run), (0, None));
}

fn every_opening_begins_a_new_epoch_of_the_same_database<D: Database>(open: &impl Fn() -> D) {
    let (first, commit) = {
        let db = open();
        assert_eq!(db.commit(&[]).unwrap(), db.commit_number());
        (db.identity(), db.commit_number())
    };
    let db = open();
    assert_eq!(db.identity().database_id, first.database_id);
    assert_eq!(db.identity().epoch, first.epoch + 1);
    assert_eq!(db.commit_number(), commit);
    assert_eq!(db.commit(&[]).unwrap(), commit + 1);
}

fn an_epoch_is_raised_above_what_was_seen_and_stays_there<D: Database>(open: &impl Fn() -> D) {
    let raised = {
        let db = open();
        let before = db.identity().epoch;
        assert_eq!(db.raise_epoch(before - 1).unwrap(), before);
        assert_eq!(db.raise_epoch(before + 41).unwrap(), before + 42);
        assert_eq!(db.raise_epoch(before).unwrap(), before + 42);
        assert_eq!(db.identity().epoch, before + 42);
        before + 42
    };
    assert_eq!(open().identity().epoch, raised + 1);
}

fn a_record_comes_back_as_it_was_written<D: Database>(open: &impl Fn() -> D) {
    let batch = [Change::JobInserted(full_job()), Change::RunInserted(full_run())];
    open().commit(&batch).unwrap();
    let db = open();
    assert_eq!(db.job(JobId(1)).unwrap(), Some(full_job()));
    assert_eq!(db.run(run_id(1)).unwrap(), Some(full_run()));
    assert_eq!(db.runs(JobId(1)).unwrap(), [full_run()]);
    assert_eq!(db.job_of_key("key").unwrap(), Some(JobId(1)));
    assert_eq!(
        (db.job(JobId(2)).unwrap(), db.run(run_id(2)).unwrap(), db.job_of_key("k").unwrap()),
        (None, None, None)
    );
    let snapshot = db.load().unwrap();
    assert_eq!((snapshot.jobs, snapshot.runs, snapshot.last_job), (vec![full_job()], vec![full_run()], 1));
}

fn a_batch_that_is_written_twice_is_there_once<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    let batch = [
        Change::JobInserted(job(2, "twice", Status::Dispatched)),
        Change::RunInserted(run(2, 2, Status::Dispatched)),
        Change::FactInserted(fact(2, 1)),
    ];
    db.commit(&batch).unwrap();
    db.commit(&batch).unwrap();
    assert_eq!(db.counts().unwrap().of(Status::Dispatched), 1);
    assert_eq!((db.runs(JobId(2)).unwrap().len(), db.facts(run_id(2)).unwrap().len()), (1, 1));
}

fn what_is_over_is_not_loaded<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    let over = JobRecord { ended_at_ms: Some(5), ..job(2, "twice", Status::Completed) };
    let batch = [Change::JobUpdated(over.clone()), Change::RunUpdated(run(2, 2, Status::Completed))];
    db.commit(&batch).unwrap();
    let snapshot = db.load().unwrap();
    assert_eq!((snapshot.jobs.len(), snapshot.runs.len(), snapshot.last_job), (1, 1, 2));
    assert_eq!(snapshot.last_run, Some(run_id(2)), "also of those that are over");
    assert_eq!((snapshot.counts.of(Status::Completed), snapshot.counts.of(Status::Running)), (1, 1));
    assert_eq!(db.job(JobId(2)).unwrap(), Some(over));
}

pub(super) fn fact(n: u128, seq: u64) -> FactRecord {
    FactRecord {
        run: run_id(n),
        seq,
        received_at_ms: 5,
        commit: 0,
        committed_at_ms: None,
        bytes: vec![1, 2, 3],
    }
}

fn facts_are_kept_once_in_their_order<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    let first = db.commit(&[Change::FactInserted(fact(3, 2)), Change::FactInserted(fact(3, 1))]).unwrap();
    db.commit(&[Change::FactInserted(FactRecord { bytes: vec![9], ..fact(3, 1) })]).unwrap();
    let mut facts = db.facts(run_id(3)).unwrap();
    assert!(facts.iter_mut().all(|fact| fact.committed_at_ms.take().is_some_and(|at| at > 0)));
    let kept = |seq| FactRecord { commit: first, ..fact(3, seq) };
    assert_eq!(facts, [kept(1), kept(2)]);
    assert_eq!((db.strays().unwrap(), db.stray_seq(run_id(4)).unwrap()), (0, 0));
    let stray = Change::StrayInserted(StrayRecord { agent: "a".into(), fact: fact(4, 7) });
    db.commit(&[stray.clone(), stray]).unwrap();
    assert_eq!((db.strays().unwrap(), db.stray_seq(run_id(4)).unwrap()), (1, 7));
    assert_eq!(db.facts(run_id(4)).unwrap().len(), 1);
}

fn agents_queues_and_attachments_come_and_go<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    let queue = QueueRecord { name: "q".into(), held: true, slots: Some(7), priority: -1, created_at_ms: 9 };
    let dials_in = AgentRecord {
        dial: None,
        agent_id: None,
        boot_id: None,
        incarnation: None,
        drain: None,
        trouble: None,
        ..agent("b")
    };
    let pair = || ("q".to_owned(), "a".to_owned());
    db.commit(&[
        Change::QueueInserted(queue.clone()),
        Change::AgentInserted(agent("a"), vec![1; 32]),
        Change::AgentInserted(dials_in.clone(), vec![2; 32]),
        Change::Attached(pair().0, pair().1),
        Change::Attached("default".into(), "a".into()),
        Change::Attached("q".into(), "b".into()),
    ])
    .unwrap();
    let snapshot = db.load().unwrap();
    assert_eq!(snapshot.agents, [agent("a"), dials_in.clone()]);
    assert!(snapshot.queues.contains(&queue) && snapshot.attachments.contains(&pair()));
    let trouble = Some(Trouble { text: "t".into(), at_ms: 7, rival_boot_id: None });
    let changed = AgentRecord { slots: 1, trouble, ..agent("a") };
    db.commit(&[
        Change::AgentUpdated(changed.clone()),
        Change::AgentDeleted("b".into()),
        Change::QueueUpdated(QueueRecord { held: false, ..queue }),
        Change::Detached("default".into(), "a".into()),
    ])
    .unwrap();
    let snapshot = db.load().unwrap();
    assert_eq!((snapshot.agents, snapshot.attachments), (vec![changed], vec![pair()]));
    assert!(snapshot.queues.iter().all(|queue| !queue.held));
    assert_eq!(db.secrets().unwrap().len(), 1, "those of a removed agent are gone");
    db.commit(&[Change::QueueDeleted("q".into())]).unwrap();
    let snapshot = db.load().unwrap();
    assert_eq!((snapshot.queues.len(), snapshot.attachments.len()), (1, 0));
}

fn only_the_newest_secret_stays_when_the_others_are_retired<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    db.commit(&[
        Change::AgentInserted(agent("a"), vec![1; 32]),
        Change::AgentInserted(agent("b"), vec![2; 32]),
        Change::SecretAdded("a".into(), vec![3; 32]),
    ])
    .unwrap();
    db.commit(&[Change::SecretsRetired("a".into()), Change::SecretsRetired("b".into())]).unwrap();
    let left: Vec<_> = db.secrets().unwrap().into_iter().map(|agent| agent.secrets).collect();
    assert_eq!(left, [vec![vec![3; 32]], vec![vec![2; 32]]]);
}

fn two_secrets_are_valid_the_newest_first<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    for byte in [2, 3, 3, 4] {
        db.commit(&[Change::SecretAdded("a".into(), vec![byte; 32])]).unwrap();
    }
    assert_eq!(db.secrets().unwrap()[0].secrets, [vec![4; 32], vec![3; 32]]);
}

fn users_and_tokens_are_kept<D: Database>(open: &impl Fn() -> D) {
    let token = TokenRecord {
        id: "i".into(),
        name: "n".into(),
        user: "u".into(),
        role: "admin".into(),
        hash: "h".into(),
        created_at_ms: 1,
        expires_at_ms: None,
        revoked_at_ms: None,
        used_at_ms: None,
    };
    let user = UserRecord { name: "u".into(), disabled: false, created_at_ms: 1 };
    let write = |entries: &[Entry]| open().commit_with(&[], entries).unwrap();
    write(&[Entry::User(user.clone()), Entry::Token(token.clone())]);
    let newer = TokenRecord { expires_at_ms: Some(7), revoked_at_ms: Some(8), ..token };
    write(&[
        Entry::Token(newer.clone()),
        Entry::TokenUsed("i".into(), 9),
        Entry::TokenUsed("none".into(), 9),
    ]);
    assert_eq!(open().tokens().unwrap(), [TokenRecord { used_at_ms: Some(9), ..newer }]);
    let disabled = UserRecord { disabled: true, ..user };
    write(&[Entry::User(disabled.clone())]);
    assert_eq!(open().users().unwrap(), [disabled]);
    write(&[Entry::UserRemoved("u".into())]);
    assert_eq!(open().users().unwrap(), []);
}

fn audit(number: u64) -> AuditRecord {
    let one = |name: &str| if number.is_multiple_of(2) { name.to_owned() } else { "other".to_owned() };
    AuditRecord {
        number,
        at_ms: i64::try_from(number).unwrap() * 10,
        user: one("anna"),
        token: "t".into(),
        role: "admin".into(),
        from: "127.0.0.1:1".into(),
        via: "lastword".into(),
        action: "queue.hold".into(),
        object: format!("queue/{}", one("q")),
        detail: serde_json::json!({"n": number}).as_object().unwrap().clone(),
        reason: number.is_multiple_of(3).then(|| "because".to_owned()),
        refusal: number.is_multiple_of(5).then(|| "no".to_owned()),
    }
}

fn the_audit_is_kept_and_found_by_who_and_what_and_when<D: Database>(open: &impl Fn() -> D) {
    assert_eq!(open().last_audit().unwrap(), 0);
    let entries: Vec<_> = (1..=20).map(|number| Entry::Audit(audit(number))).collect();
    open().commit_with(&[], &entries).unwrap();
    open().commit_with(&[], &entries).unwrap();
    let db = open();
    assert_eq!(db.last_audit().unwrap(), 20);
    let all = AuditFilter::default();
    assert_eq!(db.audit(&all, Walk::Below(Some(16)), 2).unwrap().items, [audit(15), audit(14)]);
    let of = |filter: &AuditFilter| {
        let piece = db.audit(filter, Walk::Below(None), 3).unwrap();
        (piece.items.iter().map(|record| record.number).collect::<Vec<_>>(), piece.next)
    };
    assert_eq!(of(&AuditFilter { who: Some("anna".into()), ..all.clone() }), (vec![20, 18, 16], Some(16)));
    assert_eq!(of(&AuditFilter { object: Some("queue/other".into()), ..all.clone() }).0, [19, 17, 15]);
    assert_eq!(of(&AuditFilter { since_ms: Some(190), ..all }), (vec![20, 19], None));
}

fn an_answer_is_kept_as_it_was_first_given<D: Database>(open: &impl Fn() -> D) {
    let key = |part| AnswerKey { user: "anna".into(), key: "k".into(), part };
    let submitted = |job, existing| scheduler::Submitted { job: JobId(job), existing };
    let jobs = Reply::Submitted(vec![submitted(7, false), submitted(8, true)]);
    let first = AnswerRecord { key: key(0), digest: [1; 32], reply: jobs, at_ms: 5 };
    let second = AnswerRecord { key: key(1), reply: Reply::Done, at_ms: 50, ..first.clone() };
    let again = AnswerRecord { digest: [2; 32], reply: Reply::Done, ..first.clone() };
    let entries = [first.clone(), second.clone(), again].map(Entry::Answered);
    open().commit_with(&[], &entries).unwrap();
    assert_eq!(open().answer(&key(0)).unwrap(), Some(first));
    assert_eq!(open().answer(&key(2)).unwrap(), None);
    assert!(!open().forget(Journal::Answers, Keep { since_ms: 6, count_max: 0 }).unwrap());
    let db = open();
    assert_eq!((db.answer(&key(0)).unwrap(), db.answer(&key(1)).unwrap()), (None, Some(second)));
}

fn what_is_too_old_or_too_much_is_forgotten_but_for_the_newest<D: Database>(open: &impl Fn() -> D) {
    let keep = |since_ms, count_max| Keep { since_ms, count_max };
    assert!(!open().forget(Journal::Events, keep(1_011, u64::MAX)).unwrap());
    assert_eq!(open().events_kept().unwrap(), Some((11, 90)), "older ones are gone");
    assert!(!open().forget(Journal::Events, keep(0, 30)).unwrap());
    assert_eq!(open().events_kept().unwrap(), Some((61, 90)), "more than that are gone");
    assert!(!open().forget(Journal::Events, keep(i64::MAX, 0)).unwrap());
    let db = open();
    assert_eq!((db.events_kept().unwrap(), db.load().unwrap().last_event), (Some((90, 90)), 90));
    assert!(!db.forget(Journal::Audit, keep(95, 15)).unwrap());
    let audit = db.audit(&AuditFilter::default(), Walk::After(0), 99).unwrap();
    assert_eq!((audit.items.first().unwrap().number, audit.items.len()), (10, 11));
}

fn what_a_job_waits_for_is_kept<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    let waits =
        [None, Some(Wait::Start { until_ms: 1 }), Some(Wait::Retry { until_ms: 2 }), Some(Wait::Decision)];
    let mut record = job(300, "waits", Status::Waiting);
    db.commit(&[Change::JobInserted(record.clone())]).unwrap();
    for wait in waits {
        record = JobRecord { wait, tries: record.tries + 1, ..record };
        db.commit(&[Change::JobUpdated(record.clone())]).unwrap();
        assert_eq!(db.job(JobId(300)).unwrap(), Some(record.clone()));
    }
}

pub(super) fn event(number: u64) -> EventRecord {
    let event = match number % 3 {
        0 => Event::new(EventKind::JobStatus, Object::Job(JobId(number / 30)), "Completed").in_queue("q"),
        1 => Event::new(EventKind::QueueHeld, Object::Queue("q".into()), "ü"),
        _ => Event::new(EventKind::AgentLost, Object::Agent("a".into()), "").grave(Severity::Error),
    };
    let data = serde_json::json!({"status": "Completed", "n": number, "none": null});
    EventRecord { number, at_ms: 1_000 + i64::try_from(number).unwrap(), event: event.with(data) }
}

fn events_are_kept_once_and_read_from_either_end<D: Database>(open: &impl Fn() -> D) {
    assert_eq!(open().events_kept().unwrap(), None);
    let batch: Vec<_> = (1..=90).map(|number| Change::Event(event(number))).collect();
    open().commit(&batch).unwrap();
    open().commit(&[Change::Event(EventRecord { at_ms: 0, ..event(90) })]).unwrap();
    let db = open();
    assert_eq!((db.events_kept().unwrap(), db.load().unwrap().last_event), (Some((1, 90)), 90));
    let all = EventFilter::default();
    let read = |filter: &EventFilter, from, limit| {
        let piece = db.events(filter, from, limit).unwrap();
        (piece.items.iter().map(|record| record.number).collect::<Vec<_>>(), piece.next)
    };
    assert_eq!(db.events(&all, Walk::After(87), 9).unwrap().items, [event(88), event(89), event(90)]);
    assert_eq!(read(&all, Walk::After(87), 2), (vec![88, 89], Some(89)));
    assert_eq!(read(&all, Walk::After(90), 2), (vec![], None));
    assert_eq!(read(&all, Walk::Below(None), 2), (vec![90, 89], Some(89)));
    assert_eq!(read(&all, Walk::Below(Some(3)), 2), (vec![2, 1], None));
    let job = EventFilter { jobs: vec![JobId(1)], ..EventFilter::default() };
    assert_eq!(read(&job, Walk::After(0), 99).0, (30..60).step_by(3).collect::<Vec<_>>());
    let kinds = EventFilter { kinds: vec!["agent".into(), "queue.held".into()], ..EventFilter::default() };
    assert_eq!(read(&kinds, Walk::Below(Some(6)), 3), (vec![5, 4, 2], Some(2)));
}
