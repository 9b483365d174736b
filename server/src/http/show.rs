//! Records as the interface shows them.

use crate::agents::LiveView;
use api::{
    AgentDrain, AgentFailedProof, Job, JobSummary, LateOutcome, RestartPolicy, Run, Span, UnknownPolicy,
};
use job::{AgentId, Status};
use scheduler::{AgentView, Counts, JobRecord, QueueView, RunRecord, Wait};

pub(super) fn job(record: &JobRecord, runs: &[RunRecord]) -> Job {
    let spec = &record.spec;
    let summary = summary(record);
    let kill = record.kill.as_ref().filter(|_| !record.status.is_final());
    let pause = record.pause.as_ref().filter(|_| !record.status.is_final());
    Job {
        id: summary.id,
        name: summary.name,
        status: summary.status,
        queue: summary.queue,
        agent: summary.agent,
        exit_code: summary.exit_code,
        signal: summary.signal,
        timed_out: timed_out(record),
        reason: summary.reason,
        submitted_at: summary.submitted_at,
        started_at: summary.started_at,
        ended_at: summary.ended_at,
        runs: runs.iter().map(run).collect(),
        params: spec.params.iter().cloned().collect(),
        command: spec.command.iter().map(|word| text(word)).collect(),
        script: spec.script.as_deref().map(text),
        user: spec.user.clone(),
        cwd: spec.cwd.clone(),
        umask: spec.umask.map(|mask| mask.to_string()),
        nice: spec.nice,
        limits: spec.limits.iter().map(|l| (l.resource.name().to_owned(), l.to_string())).collect(),
        env: spec.env.iter().cloned().collect(),
        output_limit: spec.output_limit.map(|limit| limit.to_string()),
        leftovers: Some(spec.leftovers.to_string()),
        capture: spec.capture.clone(),
        timeout: spec.timeout_ms.map(|ms| Span { ms }),
        grace: spec.grace_ms.map(|ms| Span { ms }),
        priority: spec.priority,
        submitted_by: spec.submitted_by.clone(),
        idempotency_key: spec.idempotency_key.clone(),
        kill_requested_by: kill.map(|kill| kill.by.clone()),
        suspend_requested_by: pause.filter(|wish| wish.suspend).map(|wish| wish.by.clone()),
        resume_requested_by: pause.filter(|wish| !wish.suspend).map(|wish| wish.by.clone()),
        waits_for: record.wait.map(|wait| waits_for(wait).to_owned()),
        waits_until: record.wait.and_then(Wait::until_ms).map(Into::into),
        start_at: Some(record.due_at_ms()).filter(|at| *at != record.submitted_at_ms).map(Into::into),
        retry: spec.policy.retry.as_ref().map(Into::into),
        on_unknown: UnknownPolicy(spec.policy.on_unknown),
        restart_safe: RestartPolicy(spec.policy.restart_safe),
    }
}

fn waits_for(wait: Wait) -> &'static str {
    match wait {
        Wait::Start { .. } => "start",
        Wait::Retry { .. } => "retry",
        Wait::Decision => "decision",
    }
}

pub(super) fn summary(record: &JobRecord) -> JobSummary {
    JobSummary {
        id: record.id.0,
        name: record.spec.name.clone(),
        status: record.status.into(),
        queue: record.spec.queue.clone(),
        agent: record.agent.clone().or_else(|| record.spec.agent.clone()),
        exit_code: record.exit_code,
        signal: record.signal,
        reason: record.reason.clone(),
        submitted_at: record.submitted_at_ms.into(),
        started_at: record.started_at_ms.map(Into::into),
        ended_at: record.ended_at_ms.map(Into::into),
    }
}

/// The record says it in its reason only; `job::Outcome::reason` is where that text is made.
fn timed_out(record: &JobRecord) -> bool {
    record.status == Status::Killed
        && record.reason.as_ref().is_some_and(|reason| reason.starts_with("timed out after"))
}

pub(super) fn run(record: &RunRecord) -> Run {
    Run {
        run_id: record.id.to_string(),
        attempt: record.attempt,
        agent: record.agent.clone(),
        status: record.status.into(),
        exit_code: record.exit_code,
        signal: record.signal,
        witness: record.witness.map(|witness| witness.to_string()),
        reason: record.reason.clone(),
        placed_at: Some(record.placed_at_ms.into()),
        started_at: record.started_at_ms.map(Into::into),
        ended_at: record.ended_at_ms.map(Into::into),
        cpu_ms: record.usage.cpu_ms,
        user_ms: record.usage.user_ms,
        system_ms: record.usage.system_ms,
        max_rss_kib: record.usage.max_rss_kib,
        memory_peak_kib: record.usage.memory_peak_kib,
        read_bytes: record.usage.read_bytes,
        written_bytes: record.usage.written_bytes,
        oom_kills: record.usage.oom_kills,
        context_switches: record.usage.context_switches,
        processes_peak: record.usage.processes_peak,
        late_outcome: record.late.as_ref().map(|late| LateOutcome {
            status: late.outcome.status().into(),
            exit_code: late.outcome.exit_code(),
            signal: late.outcome.signal(),
            reason: late.outcome.reason(),
        }),
    }
}

pub(super) fn counts(counts: &Counts) -> api::Counts {
    api::Counts(counts.iter().map(|(status, count)| (status.into(), count)).collect())
}

pub(super) fn queue(view: &QueueView) -> api::Queue {
    api::Queue {
        name: view.record.name.clone(),
        held: view.record.held,
        slots: view.record.slots,
        priority: view.record.priority,
        agents: view.agents.clone(),
        waiting: view.waiting,
        active: view.active,
    }
}

pub(super) fn agent(view: &AgentView, live: Option<&LiveView>) -> api::Agent {
    let record = &view.record;
    let since = if view.connected { record.connected_at_ms } else { record.disconnected_at_ms };
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    api::Agent {
        name: record.name.clone(),
        connected: view.connected,
        since: since.map(Into::into),
        last_seen_at: live.map(|live| live.last_seen_ms).or(record.disconnected_at_ms).map(Into::into),
        host: record.dial.as_ref().map(|dial| dial.host.clone()),
        port: record.dial.as_ref().map(|dial| dial.port),
        dials_in: record.dial.is_none(),
        slots: record.slots,
        slots_used: view.used,
        refusing: some(&view.refusing),
        queues: view.queues.clone(),
        paused_until: view.paused_until_ms.map(Into::into),
        address: live.map(|live| live.address.to_string()),
        protocol: live.map(|live| live.version),
        agent_id: record.agent_id.map(|id| AgentId(id).to_string()),
        software: some(&record.software),
        platform: some(&record.platform),
        stopped: record.stopped && !view.connected,
        drain: record.drain.as_ref().map(|drain| AgentDrain {
            by: drain.by.clone(),
            reason: some(&drain.reason),
            since: drain.at_ms.into(),
        }),
        trouble: record.trouble.as_ref().map(|trouble| trouble.text.clone()),
        trouble_at: record.trouble.as_ref().map(|trouble| trouble.at_ms.into()),
        failed_proof: view.failed_proof.as_ref().map(|failed| AgentFailedProof {
            at: failed.at_ms.into(),
            address: failed.address.clone(),
            reason: failed.reason.clone(),
        }),
    }
}

/// What came in by this interface was UTF-8; what came in otherwise is shown as well as it can be.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
