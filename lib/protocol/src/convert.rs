//! Between the wire's messages and `job`'s types: where `optional` fields are checked.

use crate::message::{
    EndKind, Ended, Fact, FactBody, LeftoversKind, Limit, OutputPolicyKind, RunSpec, WitnessKind,
};
use job::output::{OUTPUT_LIMIT_BYTES_MIN, OutputLimit, OutputPolicy};
use job::{AttributeError, End, Leftovers, Never, Outcome, Resource, RunId, StopCause, Usage, Witness};
use prost::Message;

/// A message lacks a field that must be known, or a field has a value that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not protobuf of that message at all.
    #[error("{message}: {what}")]
    Undecodable {
        /// Which message.
        message: &'static str,
        /// What the decoder said.
        what: String,
    },
    /// A field is absent or out of its range.
    #[error("{message}: field \"{field}\" is missing or out of its range")]
    Field {
        /// Which message.
        message: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// A spec asks for what this program does not know.
    #[error("it needs an agent of protocol {needs}, and this one speaks {speaks}: upgrade the agent")]
    TooNew {
        /// The version that it needs.
        needs: u32,
        /// The highest that this program speaks.
        speaks: u32,
    },
}

/// The error for a field of a message.
pub fn bad_field(message: &'static str, field: &'static str) -> Malformed {
    Malformed::Field { message, field }
}

/// Reads a run id field.
pub fn run_id(message: &'static str, field: &Option<Vec<u8>>) -> Result<RunId, Malformed> {
    field.as_deref().and_then(|bytes| RunId::from_bytes(bytes).ok()).ok_or(bad_field(message, "run_id"))
}

/// Writes a run id field.
pub fn run_id_field(run_id: RunId) -> Option<Vec<u8>> {
    Some(run_id.as_bytes().to_vec())
}

impl Fact {
    /// Encodes once: these bytes go to disk, over the wire and into the database.
    pub fn new(at_ms: i64, body: FactBody) -> Fact {
        Fact { at_ms: Some(at_ms), body: Some(body) }
    }

    /// Reads a fact. `Ok` with `body == None` is a kind of fact that this version does not know: keep and pass it on.
    pub fn read(bytes: &[u8]) -> Result<Fact, Malformed> {
        Fact::decode(bytes).map_err(|e| Malformed::Undecodable { message: "Fact", what: e.to_string() })
    }
}

impl RunSpec {
    /// Reads a spec and checks that there is something to run.
    pub fn read(bytes: &[u8]) -> Result<RunSpec, Malformed> {
        let spec = RunSpec::decode(bytes)
            .map_err(|e| Malformed::Undecodable { message: "RunSpec", what: e.to_string() })?;
        spec.check()?;
        Ok(spec)
    }

    /// Checks what must be known before a run can be accepted.
    pub fn check(&self) -> Result<(), Malformed> {
        self.check_needs()?;
        let has_nul = |bytes: &[u8]| bytes.contains(&0);
        if self.job_id.is_none_or(|id| id == 0) {
            return Err(bad_field("RunSpec", "job_id"));
        }
        if self.script.is_none() && self.command.first().is_none_or(Vec::is_empty)
            || self.command.iter().any(|arg| has_nul(arg))
        {
            return Err(bad_field("RunSpec", "command"));
        }
        let bad_pair = |p: &crate::message::Pair| {
            p.name.is_empty() || p.name.contains(['=', '\0']) || p.value.contains('\0')
        };
        if self.env.iter().any(bad_pair) {
            return Err(bad_field("RunSpec", "env"));
        }
        if self.params.iter().any(bad_pair) {
            return Err(bad_field("RunSpec", "params"));
        }
        if self.cwd.as_ref().is_some_and(|cwd| !cwd.starts_with('/') || has_nul(cwd.as_bytes())) {
            return Err(bad_field("RunSpec", "cwd"));
        }
        if self.umask.is_some_and(|umask| umask > job::UMASK_MAX) {
            return Err(bad_field("RunSpec", "umask"));
        }
        if self.nice.is_some_and(|nice| job::check_nice(nice).is_err()) {
            return Err(bad_field("RunSpec", "nice"));
        }
        if self.output_limit().is_err() {
            return Err(bad_field("RunSpec", "output_limit"));
        }
        if job::check_capture(&self.capture).is_err() {
            return Err(bad_field("RunSpec", "capture"));
        }
        if self.limits.iter().any(|limit| job::Limit::try_from(limit).is_err()) {
            return Err(bad_field("RunSpec", "limits"));
        }
        Ok(())
    }
}

impl From<&job::Limit> for Limit {
    fn from(limit: &job::Limit) -> Limit {
        Limit { resource: limit.resource.name().to_owned(), soft: limit.soft, hard: limit.hard }
    }
}

impl TryFrom<&Limit> for job::Limit {
    type Error = AttributeError;
    fn try_from(limit: &Limit) -> Result<job::Limit, AttributeError> {
        let resource = Resource::named(&limit.resource)
            .ok_or_else(|| AttributeError::NoSuchLimit { name: limit.resource.clone() })?;
        job::Limit::new(resource, limit.soft, limit.hard)
    }
}

impl RunSpec {
    /// How much it may write, if that is limited.
    pub fn output_limit(&self) -> Result<Option<OutputLimit>, Malformed> {
        let Some(limit) = &self.output_limit else { return Ok(None) };
        let bad = || bad_field("RunSpec", "output_limit");
        let bytes_max = limit.bytes_max.filter(|b| *b >= OUTPUT_LIMIT_BYTES_MIN).ok_or_else(bad)?;
        let policy = match limit.policy.map(OutputPolicyKind::try_from) {
            None | Some(Ok(OutputPolicyKind::Unspecified | OutputPolicyKind::KeepEnds)) => {
                OutputPolicy::KeepEnds
            }
            Some(Ok(OutputPolicyKind::Kill)) => OutputPolicy::Kill,
            Some(Ok(OutputPolicyKind::Truncate)) => OutputPolicy::Truncate,
            Some(Err(_)) => return Err(bad()),
        };
        Ok(Some(OutputLimit { bytes_max, policy }))
    }

    /// What becomes of its leftovers. A policy of a newer version is taken for the usual one.
    pub fn leftovers_policy(&self) -> Leftovers {
        match self.leftovers.map(LeftoversKind::try_from) {
            Some(Ok(LeftoversKind::Wait)) => Leftovers::Wait,
            Some(Ok(LeftoversKind::Ignore)) => Leftovers::Ignore,
            Some(Ok(LeftoversKind::Kill | LeftoversKind::Unspecified) | Err(_)) | None => Leftovers::Kill,
        }
    }
}

/// As a run's order has it.
pub fn output_limit_field(limit: Option<OutputLimit>) -> Option<crate::message::OutputLimit> {
    let limit = limit?;
    let policy = match limit.policy {
        OutputPolicy::KeepEnds => OutputPolicyKind::KeepEnds,
        OutputPolicy::Kill => OutputPolicyKind::Kill,
        OutputPolicy::Truncate => OutputPolicyKind::Truncate,
    };
    Some(crate::message::OutputLimit { bytes_max: Some(limit.bytes_max), policy: Some(policy as i32) })
}

/// As a run's order has it; the usual one is not said.
pub fn leftovers_field(leftovers: Leftovers) -> Option<i32> {
    match leftovers {
        Leftovers::Kill => None,
        Leftovers::Wait => Some(LeftoversKind::Wait as i32),
        Leftovers::Ignore => Some(LeftoversKind::Ignore as i32),
    }
}

impl From<&Outcome> for Ended {
    fn from(outcome: &Outcome) -> Ended {
        let mut ended = Ended { witness: Some(witness_kind(outcome.witness()) as i32), ..Ended::default() };
        let kind = match outcome {
            Outcome::Ended { end, cause, usage, .. } => {
                match cause {
                    Some(StopCause::Kill { by }) => ended.killed_by = Some(by.clone()),
                    Some(StopCause::TimedOut { timeout_ms }) => ended.timed_out_after_ms = Some(*timeout_ms),
                    None => {}
                }
                set_usage(&mut ended, &usage.unwrap_or_default());
                match end {
                    End::Exited { code } => {
                        ended.exit_code = Some(u32::from(*code));
                        EndKind::Exited
                    }
                    End::Signaled { signal, core } => {
                        ended.signal = Some(u32::from(*signal));
                        ended.core = *core;
                        EndKind::Signaled
                    }
                }
            }
            Outcome::CannotExecute { reason } => {
                ended.reason.clone_from(reason);
                EndKind::CannotExecute
            }
            Outcome::NeverStarted { reason, why } => {
                ended.reason.clone_from(reason);
                (ended.canceled, ended.no_room) = (*why == Never::Canceled, *why == Never::NoRoom);
                EndKind::NeverStarted
            }
            Outcome::Unknown { reason } => {
                ended.reason.clone_from(reason);
                EndKind::Unknown
            }
        };
        ended.kind = Some(kind as i32);
        ended
    }
}

impl TryFrom<&Ended> for Outcome {
    type Error = Malformed;
    fn try_from(ended: &Ended) -> Result<Outcome, Malformed> {
        let bad = |field| bad_field("Ended", field);
        let kind = ended.kind.and_then(|k| EndKind::try_from(k).ok()).ok_or(bad("kind"))?;
        let end = match kind {
            EndKind::Unspecified => return Err(bad("kind")),
            EndKind::CannotExecute => return Ok(Outcome::CannotExecute { reason: ended.reason.clone() }),
            EndKind::NeverStarted => {
                let why = match (ended.canceled, ended.no_room) {
                    (true, _) => Never::Canceled,
                    (false, true) => Never::NoRoom,
                    (false, false) => Never::Failed,
                };
                return Ok(Outcome::NeverStarted { reason: ended.reason.clone(), why });
            }
            EndKind::Unknown => return Ok(Outcome::Unknown { reason: ended.reason.clone() }),
            EndKind::Exited => {
                End::Exited { code: ended.exit_code.and_then(|c| c.try_into().ok()).ok_or(bad("exit_code"))? }
            }
            EndKind::Signaled => End::Signaled {
                signal: ended
                    .signal
                    .and_then(|s| s.try_into().ok())
                    .filter(|s| *s != 0)
                    .ok_or(bad("signal"))?,
                core: ended.core,
            },
        };
        let witness = match ended.witness.and_then(|w| WitnessKind::try_from(w).ok()) {
            Some(WitnessKind::JobProcessor) => Witness::JobProcessor,
            Some(WitnessKind::Monitor) => Witness::Monitor,
            Some(WitnessKind::Pidfd) => Witness::Pidfd,
            Some(WitnessKind::None) | None => return Err(bad("witness")),
        };
        let cause = match (ended.timed_out_after_ms, &ended.killed_by) {
            (Some(timeout_ms), _) => Some(StopCause::TimedOut { timeout_ms }),
            (None, Some(by)) => Some(StopCause::Kill { by: by.clone() }),
            (None, None) => None,
        };
        let usage = Some(usage_of(ended)).filter(|usage| *usage != Usage::default());
        Ok(Outcome::Ended { end, cause, witness, usage })
    }
}

fn set_usage(ended: &mut Ended, usage: &Usage) {
    ended.cpu_ms = usage.cpu_ms;
    ended.user_ms = usage.user_ms;
    ended.system_ms = usage.system_ms;
    ended.max_rss_kib = usage.max_rss_kib;
    ended.memory_peak_kib = usage.memory_peak_kib;
    ended.read_bytes = usage.read_bytes;
    ended.written_bytes = usage.written_bytes;
    ended.oom_kills = usage.oom_kills;
    ended.context_switches = usage.context_switches;
    ended.processes_peak = usage.processes_peak;
}

fn usage_of(ended: &Ended) -> Usage {
    Usage {
        cpu_ms: ended.cpu_ms,
        user_ms: ended.user_ms,
        system_ms: ended.system_ms,
        max_rss_kib: ended.max_rss_kib,
        memory_peak_kib: ended.memory_peak_kib,
        read_bytes: ended.read_bytes,
        written_bytes: ended.written_bytes,
        oom_kills: ended.oom_kills,
        context_switches: ended.context_switches,
        processes_peak: ended.processes_peak,
    }
}

fn witness_kind(witness: Witness) -> WitnessKind {
    match witness {
        Witness::JobProcessor => WitnessKind::JobProcessor,
        Witness::Monitor => WitnessKind::Monitor,
        Witness::Pidfd => WitnessKind::Pidfd,
        Witness::None => WitnessKind::None,
    }
}
