//! Between records and rows. The numbers that stand for statuses and witnesses are never used again for something else.

use super::{AnswerKey, AnswerRecord, AuditRecord, DbError, TokenRecord, UserRecord};
use job::{JobId, Outcome, RunId, Status, Usage, Witness};
use prost::Message;
use protocol::message::Ended;
use rusqlite::Row;
use scheduler::{
    AgentRecord, Dial, Drain, Event, EventKind, EventRecord, FactRecord, JobRecord, JobSpec, KillWish,
    LateOutcome, PauseWish, QueueRecord, Reply, RunRecord, Severity, SpecColumns, Submitted, Trouble, Wait,
};
use std::sync::Arc;

pub(super) const JOB_COLUMNS: &str = "id, status, name, queue, agent, priority, pinned, held, idempotency_key, submitted_at, \
     started_at, ended_at, attempts, run, exit_code, signal, reason, kill_by, kill_grace, kill_at, spec, refusals, \
     settings, wait, wait_until, tries, previous, pause_by, pause_at, pause_suspend";
pub(super) const QUEUE_COLUMNS: &str = "name, held, created_at, slots, priority";
pub(super) const RUN_COLUMNS: &str = "run, job, attempt, agent, status, placed_at, accepted_at, started_at, ended_at, exit_code, \
     signal, core, witness, reason, cpu_ms, max_rss_kib, acked_seq, late, late_ended_at, late_received_at, late_seq, \
     user_ms, system_ms, memory_peak_kib, read_bytes, written_bytes, oom_kills, context_switches, processes_peak";
pub(super) const AGENT_COLUMNS: &str = "name, slots, host, port, added_at, agent_id, boot_id, incarnation, software, platform, \
     connected_at, disconnected_at, stopped, drain_by, drain_reason, drain_at, trouble, trouble_at, rival_boot_id";

/// A row that cannot be read: SQLite's error, or what is wrong with its content.
pub(super) enum Bad {
    Sql(rusqlite::Error),
    Content(String),
}

impl From<rusqlite::Error> for Bad {
    fn from(e: rusqlite::Error) -> Bad {
        Bad::Sql(e)
    }
}

impl From<Bad> for DbError {
    fn from(bad: Bad) -> DbError {
        match bad {
            Bad::Sql(e) => DbError::Retry(e.to_string()),
            Bad::Content(what) => DbError::Damaged(what),
        }
    }
}

pub(super) fn status_code(status: Status) -> i64 {
    match status {
        Status::Scheduled => 1,
        Status::Held => 2,
        Status::Queued => 3,
        Status::Waiting => 4,
        Status::Dispatched => 5,
        Status::Running => 6,
        Status::Suspended => 7,
        Status::Completed => 8,
        Status::Error => 9,
        Status::Killed => 10,
        Status::Canceled => 11,
        Status::Unknown => 12,
        Status::Abandoned => 13,
    }
}

pub(super) fn status(code: i64) -> Result<Status, Bad> {
    let known = Status::ALL.into_iter().find(|status| status_code(*status) == code);
    known.ok_or_else(|| Bad::Content(format!("{code} is the number of no status")))
}

/// The statuses of jobs that are not final have numbers below this.
pub(super) const FIRST_FINAL_CODE: i64 = 8;

pub(super) fn witness_code(witness: Witness) -> i64 {
    match witness {
        Witness::None => 0,
        Witness::JobProcessor => 1,
        Witness::Monitor => 2,
        Witness::Pidfd => 3,
    }
}

fn witness(code: i64) -> Result<Witness, Bad> {
    let all = [Witness::None, Witness::JobProcessor, Witness::Monitor, Witness::Pidfd];
    let known = all.into_iter().find(|witness| witness_code(*witness) == code);
    known.ok_or_else(|| Bad::Content(format!("{code} is the number of no witness")))
}

pub(super) fn severity_code(severity: Severity) -> i64 {
    match severity {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Error => 3,
    }
}

pub(super) fn wait_code(wait: Wait) -> i64 {
    match wait {
        Wait::Start { .. } => 1,
        Wait::Retry { .. } => 2,
        Wait::Decision => 3,
    }
}

fn wait(id: JobId, code: Option<i64>, until_ms: Option<i64>) -> Result<Option<Wait>, Bad> {
    match (code, until_ms) {
        (None, _) => Ok(None),
        (Some(1), Some(until_ms)) => Ok(Some(Wait::Start { until_ms })),
        (Some(2), Some(until_ms)) => Ok(Some(Wait::Retry { until_ms })),
        (Some(3), _) => Ok(Some(Wait::Decision)),
        (Some(code), _) => {
            Err(Bad::Content(format!("job {id}: {code} is the number of nothing to wait for")))
        }
    }
}

pub(super) fn run_id(bytes: &[u8]) -> Result<RunId, Bad> {
    RunId::from_bytes(bytes).map_err(|e| Bad::Content(format!("a run id in the database: {e}")))
}

pub(super) fn optional_run_id(bytes: Option<Vec<u8>>) -> Result<Option<RunId>, Bad> {
    bytes.map(|bytes| run_id(&bytes)).transpose()
}

pub(super) fn unsigned(value: i64) -> Result<u64, Bad> {
    u64::try_from(value)
        .map_err(|_| Bad::Content(format!("{value} stands where a number from 0 is expected")))
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// In the order of [`JOB_COLUMNS`].
pub(super) fn job(row: &Row<'_>) -> Result<JobRecord, Bad> {
    let id = JobId(unsigned(row.get(0)?)?);
    let columns = SpecColumns {
        pinned: row.get(6)?,
        priority: row.get(5)?,
        held: row.get(7)?,
        idempotency_key: row.get(8)?,
        settings: row.get(22)?,
    };
    let spec = JobSpec::decode(row.get_ref(20)?.as_blob().map_err(rusqlite::Error::from)?, columns)
        .map_err(|e| Bad::Content(format!("job {id}: {e}")))?;
    let grace: Option<i64> = row.get(18)?;
    let by: Option<String> = row.get(17)?;
    let kill = match by {
        Some(by) => {
            let at_ms = row.get::<_, Option<i64>>(19)?.unwrap_or(0);
            Some(KillWish { by, grace_ms: grace.map(unsigned).transpose()?, at_ms })
        }
        None => None,
    };
    Ok(JobRecord {
        id,
        spec: Arc::new(spec),
        submitted_at_ms: row.get(9)?,
        status: status(row.get(1)?)?,
        agent: row.get(4)?,
        attempts: row.get(12)?,
        run: optional_run_id(row.get(13)?)?,
        exit_code: row.get(14)?,
        signal: row.get(15)?,
        reason: row.get(16)?,
        started_at_ms: row.get(10)?,
        ended_at_ms: row.get(11)?,
        kill,
        refusals: row.get(21)?,
        wait: wait(id, row.get(23)?, row.get(24)?)?,
        tries: row.get(25)?,
        previous: row.get::<_, Option<i64>>(26)?.map(status).transpose()?,
        pause: pause(row)?,
    })
}

fn pause(row: &Row<'_>) -> Result<Option<PauseWish>, Bad> {
    let Some(by) = row.get::<_, Option<String>>(27)? else { return Ok(None) };
    let at_ms = row.get::<_, Option<i64>>(28)?.unwrap_or(0);
    Ok(Some(PauseWish { suspend: row.get::<_, Option<bool>>(29)?.unwrap_or(false), by, at_ms }))
}

/// In the order of [`RUN_COLUMNS`].
pub(super) fn run(row: &Row<'_>) -> Result<RunRecord, Bad> {
    let id = run_id(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
    let late = match row.get::<_, Option<Vec<u8>>>(17)? {
        Some(bytes) => Some(LateOutcome {
            outcome: outcome(&bytes).map_err(|what| Bad::Content(format!("run {id}: {what}")))?,
            ended_at_ms: row.get(18)?,
            received_at_ms: row.get::<_, Option<i64>>(19)?.unwrap_or(0),
            seq: unsigned(row.get::<_, Option<i64>>(20)?.unwrap_or(0))?,
        }),
        None => None,
    };
    Ok(RunRecord {
        id,
        job: JobId(unsigned(row.get(1)?)?),
        attempt: row.get(2)?,
        agent: row.get(3)?,
        status: status(row.get(4)?)?,
        placed_at_ms: row.get(5)?,
        accepted_at_ms: row.get(6)?,
        started_at_ms: row.get(7)?,
        ended_at_ms: row.get(8)?,
        exit_code: row.get(9)?,
        signal: row.get(10)?,
        core: row.get(11)?,
        witness: row.get::<_, Option<i64>>(12)?.map(witness).transpose()?,
        reason: row.get(13)?,
        usage: usage(row)?,
        acked_seq: unsigned(row.get(16)?)?,
        late,
    })
}

/// As [`RUN_COLUMNS`] has it.
fn usage(row: &Row<'_>) -> Result<Usage, Bad> {
    let optional = |column: usize| row.get::<_, Option<i64>>(column)?.map(unsigned).transpose();
    Ok(Usage {
        cpu_ms: optional(14)?,
        max_rss_kib: optional(15)?,
        user_ms: optional(21)?,
        system_ms: optional(22)?,
        memory_peak_kib: optional(23)?,
        read_bytes: optional(24)?,
        written_bytes: optional(25)?,
        oom_kills: optional(26)?,
        context_switches: optional(27)?,
        processes_peak: optional(28)?,
    })
}

/// A late outcome as bytes: the wire's own form.
pub(super) fn outcome_bytes(outcome: &Outcome) -> Vec<u8> {
    Ended::from(outcome).encode_to_vec()
}

fn outcome(bytes: &[u8]) -> Result<Outcome, String> {
    let ended = Ended::decode(bytes).map_err(|e| e.to_string())?;
    Outcome::try_from(&ended).map_err(|e| e.to_string())
}

/// In the order run, seq, received_at, commit_number, bytes, committed_at.
pub(super) fn fact(row: &Row<'_>) -> Result<FactRecord, Bad> {
    Ok(FactRecord {
        run: run_id(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?,
        seq: unsigned(row.get(1)?)?,
        received_at_ms: row.get(2)?,
        commit: unsigned(row.get(3)?)?,
        bytes: row.get(4)?,
        committed_at_ms: row.get(5)?,
    })
}

/// In the order of [`QUEUE_COLUMNS`].
pub(super) fn queue(row: &Row<'_>) -> Result<QueueRecord, Bad> {
    Ok(QueueRecord {
        name: row.get(0)?,
        held: row.get(1)?,
        created_at_ms: row.get(2)?,
        slots: row.get(3)?,
        priority: row.get(4)?,
    })
}

/// In the order of [`AGENT_COLUMNS`].
pub(super) fn agent(row: &Row<'_>) -> Result<AgentRecord, Bad> {
    let name: String = row.get(0)?;
    let id = |bytes: Option<Vec<u8>>| -> Result<Option<[u8; 16]>, Bad> {
        let wrong = |_| Bad::Content(format!("agent \"{name}\" has an id that is not 16 bytes long"));
        bytes.map(|bytes| bytes.try_into().map_err(wrong)).transpose()
    };
    let drain = match row.get::<_, Option<String>>(13)? {
        Some(by) => {
            let reason = row.get::<_, Option<String>>(14)?.unwrap_or_default();
            Some(Drain { by, reason, at_ms: row.get::<_, Option<i64>>(15)?.unwrap_or(0) })
        }
        None => None,
    };
    let trouble = match row.get::<_, Option<String>>(16)? {
        Some(text) => {
            let at_ms = row.get::<_, Option<i64>>(17)?.unwrap_or(0);
            Some(Trouble { text, at_ms, rival_boot_id: id(row.get(18)?)? })
        }
        None => None,
    };
    let host: Option<String> = row.get(2)?;
    let port: Option<u16> = row.get(3)?;
    Ok(AgentRecord {
        slots: row.get(1)?,
        dial: host.zip(port).map(|(host, port)| Dial { host, port }),
        added_at_ms: row.get(4)?,
        agent_id: id(row.get(5)?)?,
        boot_id: id(row.get(6)?)?,
        incarnation: row.get::<_, Option<i64>>(7)?.map(unsigned).transpose()?,
        software: row.get(8)?,
        platform: row.get(9)?,
        connected_at_ms: row.get(10)?,
        disconnected_at_ms: row.get(11)?,
        stopped: row.get(12)?,
        drain,
        trouble,
        name,
    })
}

pub(super) const EVENT_COLUMNS: &str = "number, at, kind, severity, object, queue, text, data";

/// In the order of [`EVENT_COLUMNS`].
pub(super) fn event(row: &Row<'_>) -> Result<EventRecord, Bad> {
    let number = unsigned(row.get(0)?)?;
    let wrong = |what: &dyn std::fmt::Display| Bad::Content(format!("event {number}: {what}"));
    let kind: String = row.get(2)?;
    let severity: i64 = row.get(3)?;
    let object: String = row.get(4)?;
    let data: String = row.get(7)?;
    let known = Severity::ALL.into_iter().find(|known| severity_code(*known) == severity);
    let event = Event {
        kind: EventKind::of_name(&kind).ok_or_else(|| wrong(&format!("\"{kind}\" is no kind")))?,
        severity: known.ok_or_else(|| wrong(&format!("{severity} is the number of no severity")))?,
        object: object.parse().map_err(|e: String| wrong(&e))?,
        queue: row.get(5)?,
        text: row.get(6)?,
        data: serde_json::from_str(&data).map_err(|e| wrong(&e))?,
    };
    Ok(EventRecord { number, at_ms: row.get(1)?, event })
}

pub(super) const TOKEN_COLUMNS: &str =
    "id, name, role, hash, created_at, user, expires_at, revoked_at, used_at";

/// In the order of [`TOKEN_COLUMNS`].
pub(super) fn token(row: &Row<'_>) -> Result<TokenRecord, Bad> {
    Ok(TokenRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        role: row.get(2)?,
        hash: row.get(3)?,
        created_at_ms: row.get(4)?,
        user: row.get(5)?,
        expires_at_ms: row.get(6)?,
        revoked_at_ms: row.get(7)?,
        used_at_ms: row.get(8)?,
    })
}

/// In the order name, disabled, created_at.
pub(super) fn user(row: &Row<'_>) -> Result<UserRecord, Bad> {
    Ok(UserRecord { name: row.get(0)?, disabled: row.get(1)?, created_at_ms: row.get(2)? })
}

pub(super) const AUDIT_COLUMNS: &str =
    "number, at, user, token, role, origin, via, action, object, detail, reason, refusal";

/// In the order of [`AUDIT_COLUMNS`].
pub(super) fn audit(row: &Row<'_>) -> Result<AuditRecord, Bad> {
    let number = unsigned(row.get(0)?)?;
    let detail: String = row.get(9)?;
    Ok(AuditRecord {
        number,
        at_ms: row.get(1)?,
        user: row.get(2)?,
        token: row.get(3)?,
        role: row.get(4)?,
        from: row.get(5)?,
        via: row.get(6)?,
        action: row.get(7)?,
        object: row.get(8)?,
        detail: serde_json::from_str(&detail)
            .map_err(|e| Bad::Content(format!("audit entry {number}: {e}")))?,
        reason: row.get(10)?,
        refusal: row.get(11)?,
    })
}

/// A reply as it is stored: empty for "done", else the jobs, those that were there already marked by a `+`.
pub(super) fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Done => String::new(),
        Reply::Submitted(jobs) => {
            let word = |one: &Submitted| format!("{}{}", one.job, if one.existing { "+" } else { "" });
            jobs.iter().map(word).collect::<Vec<_>>().join(",")
        }
    }
}

fn reply(text: &str) -> Result<Reply, Bad> {
    if text.is_empty() {
        return Ok(Reply::Done);
    }
    let one = |word: &str| {
        let number = word.strip_suffix('+').unwrap_or(word).parse();
        let wrong = |_| Bad::Content(format!("the stored reply \"{text}\" cannot be read"));
        Ok(Submitted { job: JobId(number.map_err(wrong)?), existing: word.ends_with('+') })
    };
    text.split(',').map(one).collect::<Result<_, Bad>>().map(Reply::Submitted)
}

/// In the order digest, reply, at.
pub(super) fn answer(row: &Row<'_>, key: &AnswerKey) -> Result<AnswerRecord, Bad> {
    let text: String = row.get(1)?;
    Ok(AnswerRecord { key: key.clone(), digest: row.get(0)?, reply: reply(&text)?, at_ms: row.get(2)? })
}
