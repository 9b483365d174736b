//! What a user asks for.

use crate::settings;
use job::output::OutputLimit;
use job::{JobId, Leftovers, Limit, Policy, Umask};
use prost::Message;
use protocol::message::{Pair, RunSpec};
use protocol::needs::Needs;
use protocol::{Malformed, convert};

/// What is to be run, where, and under which limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobSpec {
    /// For people. Empty: the program's name is taken.
    pub name: String,
    /// Where it waits.
    pub queue: String,
    /// Only this agent may have it.
    pub agent: Option<String>,
    /// The higher, the earlier. 0 is usual.
    pub priority: i32,
    /// Program and arguments; with a script: the script's arguments.
    pub command: Vec<Vec<u8>>,
    /// The text of a script to run instead of a program.
    pub script: Option<Vec<u8>>,
    /// Environment beyond the agent's standard one.
    pub env: Vec<(String, String)>,
    /// Parameters.
    pub params: Vec<(String, String)>,
    /// Working directory, absolute; the run's own if absent.
    pub cwd: Option<String>,
    /// User to run as; the agent's own if absent.
    pub user: Option<String>,
    /// File mode mask of its process; the agent's own if absent.
    pub umask: Option<Umask>,
    /// Niceness of its process; the agent's own if absent.
    pub nice: Option<i32>,
    /// Resource limits of its process.
    pub limits: Vec<Limit>,
    /// How much it may write; the agent's own limit if absent.
    pub output_limit: Option<OutputLimit>,
    /// What becomes of processes that it leaves behind.
    pub leftovers: Leftovers,
    /// Patterns of files to keep after its end.
    pub capture: Vec<String>,
    /// Stop it after this long, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Between the soft signal and SIGKILL, milliseconds.
    pub grace_ms: Option<u64>,
    /// Who asks.
    pub submitted_by: String,
    /// A second request with the same key is the same request.
    pub idempotency_key: Option<String>,
    /// Start out held.
    pub held: bool,
    /// Not before this moment, the server's wall clock.
    pub start_at_ms: Option<i64>,
    /// Not before this long after its submission, milliseconds; not beside `start_at_ms`.
    pub delay_ms: Option<u64>,
    /// What follows its attempts.
    pub policy: Policy,
}

/// The parts of a [`JobSpec`] that a database keeps in columns of their own, beside the encoded rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecColumns {
    /// [`JobSpec::agent`].
    pub pinned: Option<String>,
    /// [`JobSpec::priority`].
    pub priority: i32,
    /// [`JobSpec::idempotency_key`].
    pub idempotency_key: Option<String>,
    /// [`JobSpec::held`].
    pub held: bool,
    /// What [`JobSpec::encode_settings`] made.
    pub settings: Option<Vec<u8>>,
}

impl JobSpec {
    /// The order to an agent to run attempt number `attempt` of this job.
    pub fn run_spec(
        &self,
        job: JobId,
        attempt: u32,
        agent: &str,
        previous_outcome: &str,
        due_ms: i64,
    ) -> RunSpec {
        RunSpec {
            job_id: Some(job.0),
            attempt: Some(attempt),
            agent: agent.to_owned(),
            idempotency_key: self.idempotency_key.clone().unwrap_or_else(|| format!("lastword-job-{job}")),
            previous_outcome: previous_outcome.to_owned(),
            scheduled_at_ms: Some(due_ms),
            ..self.body()
        }
        .with_needs()
    }

    /// What it needs of its agent.
    pub fn needs(&self) -> Needs {
        self.asked().needs_of_fields()
    }

    /// Checks what can be checked without an agent; the error names the field.
    pub fn check(&self) -> Result<(), Malformed> {
        let long = |text: &str, chars_max: usize| text.chars().count() > chars_max || text.contains('\0');
        if long(&self.name, NAME_CHARS_MAX) {
            return Err(convert::bad_field("job", "name"));
        }
        if self.idempotency_key.as_ref().is_some_and(|key| key.is_empty() || long(key, KEY_CHARS_MAX)) {
            return Err(convert::bad_field("job", "idempotency_key"));
        }
        if self.user.as_ref().is_some_and(|user| user.is_empty() || long(user, NAME_CHARS_MAX)) {
            return Err(convert::bad_field("job", "user"));
        }
        if self.delay_ms.is_some_and(|ms| self.start_at_ms.is_some() || ms > DELAY_MS_MAX) {
            return Err(convert::bad_field("job", "delay"));
        }
        let spec = RunSpec { job_id: Some(1), ..self.body() };
        spec.check()?;
        if spec.encoded_len() > SPEC_BYTES_MAX {
            return Err(convert::bad_field("job", "script, command, env and params together"));
        }
        Ok(())
    }

    /// Checks what the server itself does with the job; the error says what to change.
    pub(crate) fn check_settings(&self) -> Result<(), String> {
        self.policy.check()?;
        protocol::params::check(self.params.iter().map(|(name, _)| name.as_str()))
    }

    /// The bytes that a database keeps; [`JobSpec::decode`] reads them, with the columns.
    pub fn encode(&self) -> Vec<u8> {
        self.body().encode_to_vec()
    }

    /// What concerns the server only and is no column, as bytes; `None` if all of it is as usual.
    pub fn encode_settings(&self) -> Option<Vec<u8>> {
        settings::encode(self)
    }

    /// Reads what [`JobSpec::encode`] wrote.
    pub fn decode(bytes: &[u8], columns: SpecColumns) -> Result<JobSpec, Malformed> {
        let body = RunSpec::decode(bytes)
            .map_err(|e| Malformed::Undecodable { message: "RunSpec", what: e.to_string() })?;
        let pairs = |pairs: Vec<Pair>| pairs.into_iter().map(|p| (p.name, p.value)).collect();
        let limits = body.limits.iter().map(Limit::try_from).collect::<Result<_, _>>();
        let spec = JobSpec {
            output_limit: body.output_limit()?,
            leftovers: body.leftovers_policy(),
            umask: body.umask.map(Umask),
            nice: body.nice,
            limits: limits.map_err(|_| convert::bad_field("RunSpec", "limits"))?,
            capture: body.capture,
            name: body.job_name,
            queue: body.queue,
            agent: columns.pinned,
            priority: columns.priority,
            command: body.command,
            script: body.script,
            env: pairs(body.env),
            params: pairs(body.params),
            cwd: body.cwd,
            user: body.user,
            timeout_ms: body.timeout_ms,
            grace_ms: body.grace_ms,
            submitted_by: body.submitted_by,
            idempotency_key: columns.idempotency_key,
            held: columns.held,
            ..JobSpec::default()
        };
        settings::decode(columns.settings.as_deref().unwrap_or_default(), spec)
    }

    /// What a job was, as far as the order to run it tells: it may only run where it was.
    pub fn of_run(run: &RunSpec) -> Result<JobSpec, Malformed> {
        let own_key = format!("lastword-job-{}", run.job_id.unwrap_or_default());
        let columns = SpecColumns {
            pinned: Some(run.agent.clone()),
            idempotency_key: Some(run.idempotency_key.clone())
                .filter(|key| !key.is_empty() && *key != own_key),
            ..SpecColumns::default()
        };
        JobSpec::decode(&run.encode_to_vec(), columns)
    }

    /// The name that a job gets which nobody named: that of its program.
    pub fn default_name(&self) -> String {
        let program = match (&self.script, self.command.first()) {
            (None, Some(program)) => String::from_utf8_lossy(program).into_owned(),
            (Some(_), _) | (None, None) => "script".to_owned(),
        };
        let base = program.rsplit('/').next().unwrap_or(&program);
        base.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
    }

    fn body(&self) -> RunSpec {
        let pairs = |pairs: &[(String, String)]| {
            pairs.iter().map(|(name, value)| Pair { name: name.clone(), value: value.clone() }).collect()
        };
        RunSpec {
            job_name: self.name.clone(),
            queue: self.queue.clone(),
            submitted_by: self.submitted_by.clone(),
            command: self.command.clone(),
            script: self.script.clone(),
            env: pairs(&self.env),
            params: pairs(&self.params),
            cwd: self.cwd.clone(),
            timeout_ms: self.timeout_ms,
            grace_ms: self.grace_ms,
            ..self.asked()
        }
    }

    /// What is asked of the agent beyond running it.
    fn asked(&self) -> RunSpec {
        RunSpec {
            user: self.user.clone(),
            umask: self.umask.map(|mask| mask.0),
            nice: self.nice,
            limits: self.limits.iter().map(Into::into).collect(),
            output_limit: convert::output_limit_field(self.output_limit),
            leftovers: convert::leftovers_field(self.leftovers),
            capture: self.capture.clone(),
            ..RunSpec::default()
        }
    }
}

/// The longest name of a job.
const NAME_CHARS_MAX: usize = 200;
/// The longest idempotency key.
const KEY_CHARS_MAX: usize = 200;
/// The longest delay: ten years.
const DELAY_MS_MAX: u64 = 10 * 366 * 24 * 3_600_000;
/// The largest spec: well below what fits into one frame on the wire.
const SPEC_BYTES_MAX: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use job::{OnUnknown, RestartSafe, Retry, RetryCause};

    #[test]
    fn a_spec_comes_back_from_the_database_as_it_was() {
        let spec = JobSpec {
            name: "n".into(),
            queue: "q".into(),
            agent: Some("a".into()),
            priority: -3,
            command: vec![b"/bin/echo".to_vec(), vec![0xff]],
            script: Some(b"#!/bin/sh\n".to_vec()),
            env: vec![("A".into(), "1".into())],
            params: vec![("P".into(), "2".into())],
            cwd: Some("/tmp".into()),
            user: Some("u".into()),
            output_limit: Some("1M:kill".parse().unwrap()),
            leftovers: Leftovers::Wait,
            capture: vec!["a/*".into()],
            umask: Some(Umask(0o27)),
            nice: Some(-3),
            limits: vec![
                Limit::read("nofile", "1024:4096").unwrap(),
                Limit::read("core", "unlimited").unwrap(),
            ],
            timeout_ms: Some(1),
            grace_ms: Some(2),
            submitted_by: "me".into(),
            idempotency_key: Some("k".into()),
            held: true,
            start_at_ms: Some(-1),
            delay_ms: Some(7),
            policy: Policy {
                retry: Some(Retry {
                    attempts_max: 3,
                    backoff_ms: 4,
                    backoff_max_ms: 5,
                    factor_percent: 150,
                    on: vec![
                        RetryCause::ExitCodes(7, 9),
                        RetryCause::Signal,
                        RetryCause::Timeout,
                        RetryCause::Lost,
                    ],
                }),
                on_unknown: OnUnknown::Escalate,
                restart_safe: RestartSafe::Ask,
            },
        };
        let columns = SpecColumns {
            pinned: spec.agent.clone(),
            priority: spec.priority,
            idempotency_key: spec.idempotency_key.clone(),
            held: spec.held,
            settings: spec.encode_settings(),
        };
        assert_eq!(JobSpec::decode(&spec.encode(), columns), Ok(spec));
    }

    #[test]
    fn usual_settings_take_no_room_in_the_database() {
        assert_eq!(JobSpec::default().encode_settings(), None);
        assert!(JobSpec { delay_ms: Some(0), ..JobSpec::default() }.encode_settings().is_some());
    }

    #[test]
    fn a_job_without_a_name_is_called_like_its_program() {
        let spec = |script: Option<&str>, program: &str| JobSpec {
            script: script.map(|s| s.as_bytes().to_vec()),
            command: vec![program.as_bytes().to_vec()],
            ..JobSpec::default()
        };
        assert_eq!(spec(None, "/usr/bin/true").default_name(), "true");
        assert_eq!(spec(Some("exit 7"), "arg").default_name(), "script");
    }
}
