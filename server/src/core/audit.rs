//! What the audit says of a command: a verb, an object, and what was asked for. Never a secret: of what might hold one (a command line, a
//! script, variables, parameters) it says at most that it is there.

use super::access::AccessInput;
use super::order::Order;
use crate::db::AuditRecord;
use scheduler::{Engine, Input, JobSpec, Reply};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// What a command is about.
pub(super) struct About {
    pub(super) action: Cow<'static, str>,
    pub(super) object: String,
    pub(super) detail: Map<String, Value>,
    /// It was refused before it came to the core.
    pub(super) refusal: Option<String>,
}

fn about(action: &'static str, object: impl Into<String>, detail: Value) -> Option<About> {
    let detail = match detail {
        Value::Object(detail) => detail,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    Some(About { action: action.into(), object: object.into(), detail, refusal: None })
}

/// A command of a person; `None` for the words of agents and the clock, which nobody gave.
pub(super) fn of_input(input: &Input, engine: &Engine) -> Option<About> {
    let nothing = || json!({});
    let job = |id: &job::JobId| format!("job/{id}");
    let was = |id: &job::JobId| engine.job(*id).map(|job| job.status.name());
    let (queue, agent) = (|name: &str| format!("queue/{name}"), |name: &str| format!("agent/{name}"));
    match input {
        Input::Submit(specs) => about("job.submit", "job", of_specs(specs)),
        Input::KillJob { job: id, grace_ms, .. } => {
            about("job.kill", job(id), json!({"before": was(id), "grace_ms": grace_ms}))
        }
        Input::SuspendJob { job: id, .. } => about("job.suspend", job(id), json!({"before": was(id)})),
        Input::ResumeJob { job: id, .. } => about("job.resume", job(id), json!({"before": was(id)})),
        Input::CancelJob { job: id, .. } => about("job.cancel", job(id), json!({"before": was(id)})),
        Input::HoldJob { job: id } => about("job.hold", job(id), json!({"before": was(id)})),
        Input::ReleaseJob { job: id } => about("job.release", job(id), json!({"before": was(id)})),
        Input::RestartJob(restart) => about(
            "job.restart",
            job(&restart.job),
            json!({"before": was(&restart.job), "hold": restart.hold, "force": restart.force, "reason": restart.reason}),
        ),
        Input::AbandonJob { job: id, reason, .. } => {
            about("job.abandon", job(id), json!({"before": was(id), "reason": reason}))
        }
        Input::SetQueue { name, slots, priority } => {
            let before = engine.queue(name).map(|view| view.record);
            let (slots_before, priority_before) =
                (before.as_ref().map(|queue| queue.slots), before.as_ref().map(|queue| queue.priority));
            let detail = json!({"slots": slots, "slots_before": slots_before, "priority": priority,
                "priority_before": priority_before});
            about("queue.set", queue(name), detail)
        }
        Input::CreateQueue { name } => about("queue.create", queue(name), nothing()),
        Input::DeleteQueue { name } => about("queue.remove", queue(name), nothing()),
        Input::HoldQueue { name, held } => {
            let before = engine.queue(name).map(|view| view.record.held);
            about(
                if *held { "queue.hold" } else { "queue.release" },
                queue(name),
                json!({"held_before": before}),
            )
        }
        Input::Attach { queue: name, agent } => about("queue.attach", queue(name), json!({"agent": agent})),
        Input::Detach { queue: name, agent } => about("queue.detach", queue(name), json!({"agent": agent})),
        Input::AddAgent(new) => {
            let dial = new.dial.as_ref().map(|dial| format!("{}:{}", dial.host, dial.port));
            about(
                "agent.add",
                agent(&new.name),
                json!({"dial": dial, "slots": new.slots, "queues": new.queues}),
            )
        }
        Input::RemoveAgent { name, force, .. } => about("agent.remove", agent(name), json!({"force": force})),
        Input::SetSlots { name, slots } => {
            let before = engine.agent(name).map(|view| view.record.slots);
            about("agent.set", agent(name), json!({"slots": slots, "slots_before": before}))
        }
        Input::SetSecret { name, .. } => about("agent.set", agent(name), json!({"secret": "a new one"})),
        Input::RetireSecrets { name } => about("agent.retire-secrets", agent(name), nothing()),
        Input::DrainAgent { name, reason, .. } => {
            about("agent.drain", agent(name), json!({"reason": reason}))
        }
        Input::ResumeAgent { name } => about("agent.resume", agent(name), nothing()),
        Input::EndRecovery => about("server.end-recovery", "server", nothing()),
        Input::AgentAnswered { .. }
        | Input::CaughtUp { .. }
        | Input::Untellable { .. }
        | Input::Adopt { .. }
        | Input::Told { .. }
        | Input::AgentConnected(_)
        | Input::AgentDisconnected { .. }
        | Input::AgentUnproven { .. }
        | Input::AgentRefusing { .. }
        | Input::Facts { .. }
        | Input::Refused { .. }
        | Input::NoRecord { .. }
        | Input::Forget(_)
        | Input::Tick => None,
    }
}

fn of_specs(specs: &[JobSpec]) -> Value {
    match specs {
        [spec] => json!({"name": spec.name, "queue": spec.queue, "agent": spec.agent, "user": spec.user}),
        _ => json!({"jobs": specs.len()}),
    }
}

/// A command about users or tokens.
pub(super) fn of_access(input: &AccessInput) -> Option<About> {
    match input {
        AccessInput::AddUser { name } => about("user.add", format!("user/{name}"), json!({})),
        AccessInput::DisableUser { name, disabled, force } => {
            let action = if *disabled { "user.disable" } else { "user.enable" };
            about(action, format!("user/{name}"), json!({"force": force}))
        }
        AccessInput::RemoveUser { name, force } => {
            about("user.remove", format!("user/{name}"), json!({"force": force}))
        }
        AccessInput::NewToken(token) => {
            let detail = json!({"name": token.name, "user": token.user, "role": token.role, "expires_at_ms": token.expires_at_ms});
            about("token.new", format!("token/{}", token.id), detail)
        }
        AccessInput::RevokeToken { id, force } => {
            about("token.revoke", format!("token/{id}"), json!({"force": force}))
        }
    }
}

/// The numbers of new jobs are known only when it is done.
pub(super) fn object_of(about: &About, reply: Option<&Reply>) -> String {
    match reply {
        Some(Reply::Submitted(jobs)) => match &jobs[..] {
            [one] => format!("job/{}", one.job),
            [first, .., last] => format!("job/{}-{}", first.job, last.job),
            [] => about.object.clone(),
        },
        Some(Reply::Done) | None => about.object.clone(),
    }
}

/// The entry, which still lacks its number.
pub(super) fn record(
    order: &Order,
    about: About,
    object: String,
    refusal: Option<String>,
    at_ms: i64,
) -> AuditRecord {
    // One that was given with the request stands for what the command itself says: it is said of this request, that of this object.
    let own = about.detail.get("reason").and_then(Value::as_str).filter(|reason| !reason.is_empty());
    let reason = order.reason.clone().or_else(|| own.map(str::to_owned));
    AuditRecord {
        number: 0,
        at_ms,
        user: order.caller.name.clone(),
        token: order.caller.token.clone(),
        role: order.caller.role.name().to_owned(),
        from: order.from.clone(),
        via: order.via.clone(),
        action: about.action.into_owned(),
        object,
        detail: about.detail,
        reason,
        refusal,
    }
}
