//! One batch of changes, one transaction. Doing the same batch twice does no harm: a commit that failed is tried again, and it may
//! have reached the disk.

use super::map::{outcome_bytes, severity_code, signed, status_code, wait_code, witness_code};
use super::restored::LAST_JOB;
use super::{Entry, files, write_entry};
use job::JobId;
use rusqlite::{Connection, TransactionBehavior, params};
use scheduler::{
    AgentRecord, Change, EventRecord, FactRecord, JobRecord, QueueRecord, RunRecord, StrayRecord, Wait,
};

/// So many secrets of an agent are valid at once: the new one, and the one before.
const SECRETS_MAX: i64 = 2;

const INSERT_RUN: &str = "INSERT INTO runs (run, job, attempt, agent, status, placed_at, accepted_at, started_at, ended_at, exit_code, \
     signal, core, witness, reason, cpu_ms, max_rss_kib, acked_seq, late, late_ended_at, late_received_at, late_seq, \
     user_ms, system_ms, memory_peak_kib, read_bytes, written_bytes, oom_kills, context_switches, processes_peak) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, \
     ?26, ?27, ?28, ?29) ON CONFLICT (run) DO NOTHING";
/// The same values in the same order; those that never change stay.
const UPDATE_RUN: &str = "UPDATE runs SET status = ?5, accepted_at = ?7, started_at = ?8, ended_at = ?9, exit_code = ?10, signal = ?11, \
     core = ?12, witness = ?13, reason = ?14, cpu_ms = ?15, max_rss_kib = ?16, acked_seq = ?17, late = ?18, late_ended_at = ?19, \
     late_received_at = ?20, late_seq = ?21, user_ms = ?22, system_ms = ?23, memory_peak_kib = ?24, read_bytes = ?25, \
     written_bytes = ?26, oom_kills = ?27, context_switches = ?28, processes_peak = ?29 WHERE run = ?1";

pub(super) fn commit(
    connection: &mut Connection,
    batch: &[Change],
    entries: &[Entry],
    now_ms: i64,
) -> rusqlite::Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.prepare_cached("UPDATE meta SET value = value + 1 WHERE key = 'commit'")?.execute([])?;
    let number: i64 = transaction
        .prepare_cached("SELECT value FROM meta WHERE key = 'commit'")?
        .query_row([], |row| row.get(0))?;
    for change in batch {
        write(&transaction, change, Commit { number, now_ms })?;
    }
    for entry in entries {
        write_entry::write(&transaction, entry)?;
    }
    transaction.commit()?;
    Ok(u64::try_from(number).unwrap_or(0))
}

/// The commit that a change is part of.
#[derive(Clone, Copy)]
struct Commit {
    number: i64,
    /// When it began, wall clock.
    now_ms: i64,
}

fn write(c: &Connection, change: &Change, commit: Commit) -> rusqlite::Result<()> {
    match change {
        Change::JobInserted(job) => insert_job(c, job),
        Change::JobUpdated(job) => update_job(c, job),
        Change::RunInserted(run) => put_run(c, run, [INSERT_RUN, UPDATE_RUN]),
        Change::RunUpdated(run) => put_run(c, run, [UPDATE_RUN, INSERT_RUN]),
        Change::FactInserted(fact) => insert_fact(c, fact, commit),
        Change::StrayInserted(stray) => insert_stray(c, stray, commit.number),
        Change::FileKept(file) => files::insert(c, file),
        Change::JobDeleted(job) => delete_job(c, *job),
        Change::StraysDeleted(run, _) => {
            c.execute("DELETE FROM strays WHERE run = ?1", [run.as_bytes().as_slice()]).map(drop)
        }
        Change::AgentTold(agent) => c.execute("DELETE FROM untold WHERE agent = ?1", [agent]).map(drop),
        Change::QueueInserted(queue) | Change::QueueUpdated(queue) => put_queue(c, queue),
        Change::QueueDeleted(name) => {
            c.execute("DELETE FROM queues WHERE name = ?1", [name])?;
            c.execute("DELETE FROM attachments WHERE queue = ?1", [name]).map(drop)
        }
        Change::Attached(queue, agent) => {
            c.execute("INSERT OR IGNORE INTO attachments VALUES (?1, ?2)", [queue, agent]).map(drop)
        }
        Change::Detached(queue, agent) => {
            c.execute("DELETE FROM attachments WHERE queue = ?1 AND agent = ?2", [queue, agent]).map(drop)
        }
        Change::AgentInserted(agent, secret) => {
            put_agent(c, agent)?;
            c.execute("DELETE FROM secrets WHERE agent = ?1", [&agent.name])?;
            add_secret(c, &agent.name, secret)
        }
        Change::AgentUpdated(agent) => put_agent(c, agent),
        Change::AgentDeleted(name) => {
            for table in
                ["agents WHERE name", "attachments WHERE agent", "secrets WHERE agent", "untold WHERE agent"]
            {
                c.execute(&format!("DELETE FROM {table} = ?1"), [name])?;
            }
            Ok(())
        }
        Change::SecretAdded(name, secret) => add_secret(c, name, secret),
        Change::Event(record) => insert_event(c, record),
        Change::SecretsRetired(name) => c
            .execute(
                "DELETE FROM secrets WHERE agent = ?1 AND number < (SELECT max(number) FROM secrets WHERE agent = ?1)",
                [name],
            )
            .map(drop),
    }
}

fn insert_event(c: &Connection, record: &EventRecord) -> rusqlite::Result<()> {
    let event = &record.event;
    c.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING")?
        .execute(params![
            signed(record.number),
            record.at_ms,
            event.kind.name(),
            severity_code(event.severity),
            event.object.to_string(),
            event.queue,
            event.text,
            serde_json::to_string(&event.data).unwrap_or_default(),
        ])
        .map(drop)
}

fn insert_job(c: &Connection, job: &JobRecord) -> rusqlite::Result<()> {
    let spec = &job.spec;
    let (kill, pause) = (job.kill.as_ref(), job.pause.as_ref());
    c.prepare_cached(
        "INSERT INTO jobs (id, status, name, queue, agent, priority, pinned, held, idempotency_key, submitted_at, started_at, \
         ended_at, attempts, run, exit_code, signal, reason, kill_by, kill_grace, kill_at, spec, refusals, settings, wait, \
         wait_until, tries, previous, pause_by, pause_at, pause_suspend) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, \
         ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30) \
         ON CONFLICT (id) DO NOTHING",
    )?
    .execute(params![
        signed(job.id.0),
        status_code(job.status),
        spec.name,
        spec.queue,
        job.agent,
        spec.priority,
        spec.agent,
        spec.held,
        spec.idempotency_key,
        job.submitted_at_ms,
        job.started_at_ms,
        job.ended_at_ms,
        job.attempts,
        job.run.as_ref().map(|run| run.as_bytes().as_slice()),
        job.exit_code,
        job.signal,
        job.reason,
        kill.map(|kill| &kill.by),
        kill.and_then(|kill| kill.grace_ms).map(signed),
        kill.map(|kill| kill.at_ms),
        spec.encode(),
        job.refusals,
        spec.encode_settings(),
        job.wait.map(wait_code),
        job.wait.and_then(Wait::until_ms),
        job.tries,
        job.previous.map(status_code),
        pause.map(|pause| &pause.by),
        pause.map(|pause| pause.at_ms),
        pause.map(|pause| pause.suspend),
    ])
    .map(drop)
}

/// A job with all that is kept of it. Its number is not given again.
fn delete_job(c: &Connection, job: JobId) -> rusqlite::Result<()> {
    let id = signed(job.0);
    files::delete_of_job(c, id)?;
    c.prepare_cached("DELETE FROM facts WHERE run IN (SELECT run FROM runs WHERE job = ?1)")?
        .execute([id])?;
    c.prepare_cached("DELETE FROM runs WHERE job = ?1")?.execute([id])?;
    c.prepare_cached("DELETE FROM jobs WHERE id = ?1")?.execute([id])?;
    c.prepare_cached(
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
    )?
    .execute(params![LAST_JOB, id])
    .map(drop)
}

fn update_job(c: &Connection, job: &JobRecord) -> rusqlite::Result<()> {
    let (kill, pause) = (job.kill.as_ref(), job.pause.as_ref());
    c.prepare_cached(
        "UPDATE jobs SET status = ?2, agent = ?3, started_at = ?4, ended_at = ?5, attempts = ?6, run = ?7, exit_code = ?8, \
         signal = ?9, reason = ?10, kill_by = ?11, kill_grace = ?12, kill_at = ?13, refusals = ?14, wait = ?15, wait_until = ?16, \
         tries = ?17, previous = ?18, pause_by = ?19, pause_at = ?20, pause_suspend = ?21 WHERE id = ?1",
    )?
    .execute(params![
        signed(job.id.0),
        status_code(job.status),
        job.agent,
        job.started_at_ms,
        job.ended_at_ms,
        job.attempts,
        job.run.as_ref().map(|run| run.as_bytes().as_slice()),
        job.exit_code,
        job.signal,
        job.reason,
        kill.map(|kill| &kill.by),
        kill.and_then(|kill| kill.grace_ms).map(signed),
        kill.map(|kill| kill.at_ms),
        job.refusals,
        job.wait.map(wait_code),
        job.wait.and_then(Wait::until_ms),
        job.tries,
        job.previous.map(status_code),
        pause.map(|pause| &pause.by),
        pause.map(|pause| pause.at_ms),
        pause.map(|pause| pause.suspend),
    ])
    .map(drop)
}

/// A run, new or changed. An upsert would do, but SQLite makes a temporary table for each upsert of a table without row ids, which cost
/// a third of a commit. What names a run and where it was placed never changes, so no index is touched when it does.
fn put_run(c: &Connection, run: &RunRecord, order: [&str; 2]) -> rusqlite::Result<()> {
    let (late, usage) = (run.late.as_ref(), &run.usage);
    let (id, late_outcome) = (run.id.as_bytes().as_slice(), late.map(|late| outcome_bytes(&late.outcome)));
    let values = params![
        id,
        signed(run.job.0),
        run.attempt,
        run.agent,
        status_code(run.status),
        run.placed_at_ms,
        run.accepted_at_ms,
        run.started_at_ms,
        run.ended_at_ms,
        run.exit_code,
        run.signal,
        run.core,
        run.witness.map(witness_code),
        run.reason,
        usage.cpu_ms.map(signed),
        usage.max_rss_kib.map(signed),
        signed(run.acked_seq),
        late_outcome,
        late.and_then(|late| late.ended_at_ms),
        late.map(|late| late.received_at_ms),
        late.map(|late| signed(late.seq)),
        usage.user_ms.map(signed),
        usage.system_ms.map(signed),
        usage.memory_peak_kib.map(signed),
        usage.read_bytes.map(signed),
        usage.written_bytes.map(signed),
        usage.oom_kills.map(signed),
        usage.context_switches.map(signed),
        usage.processes_peak.map(signed),
    ];
    for statement in order {
        if c.prepare_cached(statement)?.execute(values)? > 0 {
            break;
        }
    }
    Ok(())
}

fn insert_fact(c: &Connection, fact: &FactRecord, commit: Commit) -> rusqlite::Result<()> {
    c.prepare_cached(
        "INSERT INTO facts (run, seq, received_at, commit_number, committed_at, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        fact.run.as_bytes().as_slice(),
        signed(fact.seq),
        fact.received_at_ms,
        commit.number,
        commit.now_ms,
        fact.bytes
    ])
    .map(drop)
}

fn insert_stray(c: &Connection, stray: &StrayRecord, number: i64) -> rusqlite::Result<()> {
    let fact = &stray.fact;
    c.prepare_cached("INSERT INTO strays VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING")?
        .execute(params![
            fact.run.as_bytes().as_slice(),
            signed(fact.seq),
            stray.agent,
            fact.received_at_ms,
            number,
            fact.bytes
        ])
        .map(drop)
}

fn put_queue(c: &Connection, queue: &QueueRecord) -> rusqlite::Result<()> {
    c.execute(
        "INSERT OR REPLACE INTO queues (name, held, created_at, slots, priority) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![queue.name, queue.held, queue.created_at_ms, queue.slots, queue.priority],
    )
    .map(drop)
}

fn put_agent(c: &Connection, agent: &AgentRecord) -> rusqlite::Result<()> {
    c.prepare_cached(
        "INSERT OR REPLACE INTO agents (name, slots, host, port, added_at, agent_id, boot_id, incarnation, software, platform, \
         connected_at, disconnected_at, stopped, drain_by, drain_reason, drain_at, trouble, trouble_at, rival_boot_id) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
    )?
    .execute(params![
        agent.name,
        agent.slots,
        agent.dial.as_ref().map(|dial| &dial.host),
        agent.dial.as_ref().map(|dial| dial.port),
        agent.added_at_ms,
        agent.agent_id,
        agent.boot_id,
        agent.incarnation.map(signed),
        agent.software,
        agent.platform,
        agent.connected_at_ms,
        agent.disconnected_at_ms,
        agent.stopped,
        agent.drain.as_ref().map(|drain| &drain.by),
        agent.drain.as_ref().map(|drain| &drain.reason),
        agent.drain.as_ref().map(|drain| drain.at_ms),
        agent.trouble.as_ref().map(|trouble| &trouble.text),
        agent.trouble.as_ref().map(|trouble| trouble.at_ms),
        agent.trouble.as_ref().and_then(|trouble| trouble.rival_boot_id),
    ])
    .map(drop)
}

/// The newest secret has the highest number. The same secret again is not another one.
fn add_secret(c: &Connection, agent: &str, secret: &[u8]) -> rusqlite::Result<()> {
    c.execute("DELETE FROM secrets WHERE agent = ?1 AND secret = ?2", params![agent, secret])?;
    c.execute(
        "INSERT INTO secrets SELECT ?1, ifnull(max(number), 0) + 1, ?2 FROM secrets WHERE agent = ?1",
        params![agent, secret],
    )?;
    c.execute(
        "DELETE FROM secrets WHERE agent = ?1 AND number <= (SELECT max(number) FROM secrets WHERE agent = ?1) - ?2",
        params![agent, SECRETS_MAX],
    )
    .map(drop)
}
