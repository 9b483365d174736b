//! Random events, thousands per seed: jobs come and are killed, agents come and go, forget, refuse, say things twice; the server dies
//! before it did what it had committed. After every event the invariants are checked; at the end everything is mended, and
//! every job must be over, with the outcome that its agent saw, executed at most once.
//!
//! A failure prints its seed.

use crate::lab::{Lab, accepted, ended, exited, new_agent, spec, started};
use crate::policies::unknown;
use job::{JobId, Never, OnUnknown, Outcome, Policy, RestartSafe, Retry, RunId, Status, Umask};
use prost::Message;
use protocol::message::{Fact, FactBody, RefusalKind, Resumed, Suspended};
use scheduler::{Action, FactIn, Input, JobSpec, Reply, Restart};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SEEDS: u64 = 30;
const STEPS: u32 = 1_500;
const SLOTS: [(&str, u32); 3] = [("a", 1), ("b", 3), ("c", 4)];
const RETRY: Retry =
    Retry { attempts_max: 3, backoff_ms: 1_000, backoff_max_ms: 4_000, factor_percent: 200, on: Vec::new() };
const QUEUES: [&str; 3] = ["default", "night", "pin"];

/// xorshift64*: repeatable, and good enough to choose events.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            None
        } else {
            items.get(usize::try_from(self.roll(items.len() as u64)).unwrap_or(0))
        }
    }
}

/// A run on an agent's disk.
#[derive(Default)]
struct Record {
    facts: Vec<FactBody>,
    acked: u64,
    outcome: Option<Outcome>,
    job: Option<JobId>,
}

#[derive(Default)]
struct Host {
    session: Option<u64>,
    /// The protocol version that it speaks in this session.
    protocol: u32,
    inbox: VecDeque<Action>,
    disk: BTreeMap<RunId, Record>,
}

struct World {
    lab: Lab,
    dice: Dice,
    hosts: BTreeMap<&'static str, Host>,
    executions: BTreeMap<JobId, u32>,
    forgotten: BTreeSet<RunId>,
    submitted: u64,
    mending: bool,
}

#[test]
fn whatever_happens_no_job_is_lost_none_is_executed_twice_and_no_slot_is_overbooked() {
    for seed in 1..=SEEDS {
        let seen = std::panic::catch_unwind(|| World::new(seed).live());
        if let Err(panic) = seen {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut lab = Lab::new();
        for queue in &QUEUES[1..] {
            lab.act(Input::CreateQueue { name: (*queue).to_owned() });
        }
        for (name, slots) in SLOTS {
            let queues = if name == "a" { &QUEUES[..2] } else { &QUEUES[..] };
            lab.act(new_agent(name, slots, queues));
        }
        let hosts = SLOTS.iter().map(|(name, _)| (*name, Host::default())).collect();
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (executions, forgotten) = (BTreeMap::new(), BTreeSet::new());
        World { lab, dice, hosts, executions, forgotten, submitted: 0, mending: false }
    }

    fn live(mut self) {
        for _ in 0..STEPS {
            self.step();
            self.check();
        }
        self.mend();
        for job in self.lab.store.jobs.values() {
            assert!(
                job.status.is_final(),
                "job {} is {} for ever: {:?}",
                job.id,
                job.status,
                self.lab.engine.why(job.id, 0)
            );
        }
        assert_eq!(self.lab.store.jobs.len() as u64, self.submitted, "no job is lost, none invented");
        self.check_outcomes();
    }

    fn step(&mut self) {
        self.lab.now_ms += i64::try_from(self.dice.roll(2_000)).unwrap_or(0);
        let names: Vec<&'static str> = self.hosts.keys().copied().collect();
        let Some(&host) = self.dice.pick(&names) else { return };
        match self.dice.roll(100) {
            0..25 => self.submit(),
            25..30 => self.command_about_a_job(),
            30..34 => self.command_about_a_queue(),
            34..40 => self.connect(host),
            40..42 => self.disconnect(host),
            42..43 => self.forget(host),
            43..45 => self.kill_server(),
            45..48 => self.tick(),
            48..62 => self.receive(host),
            62..82 => self.work(host),
            _ => self.send(host),
        }
    }

    fn submit(&mut self) {
        let queue = (*self.dice.pick(&QUEUES).unwrap_or(&"default")).to_owned();
        let agent =
            self.dice.one_in(5).then(|| SLOTS[usize::try_from(self.dice.roll(3)).unwrap_or(0)].0.to_owned());
        let priority = i32::try_from(self.dice.roll(3)).unwrap_or(0);
        let policy = match self.dice.roll(8) {
            0 => unknown(OnUnknown::Restart, RestartSafe::AtLeastOnce),
            1 => unknown(OnUnknown::None, RestartSafe::Ask),
            2 | 3 => Policy { retry: Some(RETRY), ..Policy::default() },
            _ => Policy::default(),
        };
        let delay_ms = self.dice.one_in(20).then_some(3_000);
        let umask = self.dice.one_in(3).then_some(Umask(0)); // older agents do not know it
        let held = self.dice.one_in(20);
        let spec = JobSpec { queue, agent, priority, held, delay_ms, policy, umask, ..spec() };
        let count = 1 + self.dice.roll(3);
        let specs = (0..count).map(|_| spec.clone()).collect();
        let reply = self.act(Input::Submit(specs));
        assert!(matches!(reply, Some(Reply::Submitted(jobs)) if jobs.len() as u64 == count));
        self.submitted += count;
    }

    fn command_about_a_job(&mut self) {
        let restart = self.dice.one_in(8); // also of jobs that are over
        let jobs: Vec<JobId> =
            self.lab.store.jobs.values().filter(|j| restart || !j.status.is_final()).map(|j| j.id).collect();
        let Some(&job) = self.dice.pick(&jobs) else { return };
        let by = "me".to_owned();
        if restart {
            let restart = Restart { job, by, hold: self.dice.one_in(4), force: false, reason: None };
            self.act(Input::RestartJob(restart));
            return;
        }
        match self.dice.roll(7) {
            0 => self.act(Input::KillJob { job, by, grace_ms: None }),
            1 => self.act(Input::CancelJob { job, by }),
            2 => self.act(Input::HoldJob { job }),
            3 => self.act(Input::SuspendJob { job, by }),
            4 => self.act(Input::ResumeJob { job, by }),
            5 => {
                let run = self.lab.job(job).run;
                let done = self.act(Input::AbandonJob { job, by, reason: "gone".to_owned() });
                self.forgotten.extend(run.filter(|_| done.is_some()));
                done
            }
            _ => self.act(Input::ReleaseJob { job }),
        };
    }

    fn command_about_a_queue(&mut self) {
        let queue = (*self.dice.pick(&QUEUES).unwrap_or(&"default")).to_owned();
        let agent = SLOTS[usize::try_from(self.dice.roll(3)).unwrap_or(0)].0.to_owned();
        match self.dice.roll(8) {
            6 => {
                let slots = Some(self.dice.one_in(2).then_some(2));
                let priority = i32::try_from(self.dice.roll(3)).ok();
                self.act(Input::SetQueue { name: queue, slots, priority })
            }
            0 => self.act(Input::HoldQueue { name: queue, held: true }),
            1 => self.act(Input::Detach { queue, agent }),
            2 | 3 => self.act(Input::Attach { queue, agent }),
            _ => self.act(Input::HoldQueue { name: queue, held: false }),
        };
    }

    fn connect(&mut self, name: &'static str) {
        let session = self.lab.next_session;
        let unsettled = |record: &&Record| !record.is_settled();
        let host = &self.hosts[name];
        let inventory: Vec<(RunId, u64)> = host
            .disk
            .iter()
            .filter(|(_, record)| unsettled(record))
            .map(|(run, record)| (*run, record.facts.len() as u64))
            .collect();
        let protocol = if self.mending || self.dice.one_in(2) { 2 } else { 1 };
        if let Some(host) = self.hosts.get_mut(name) {
            host.inbox.clear();
            (host.session, host.protocol) = (Some(session), protocol);
        }
        let (_, actions) = self.lab.connect_as(name, protocol, &inventory);
        self.deliver(actions);
    }

    fn disconnect(&mut self, name: &'static str) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        host.inbox.clear();
        if let Some(session) = host.session.take() {
            self.act(Input::AgentDisconnected { agent: name.to_owned(), session, stopping: false });
        }
    }

    /// The host's disk loses a run that is not over and of which the server knows. (If the server does not know yet that it was accepted,
    /// nobody can tell that it ever was there: that is what disks are for.)
    fn forget(&mut self, name: &'static str) {
        self.disconnect(name);
        let Some(host) = self.hosts.get_mut(name) else { return };
        let lost = host
            .disk
            .iter()
            .find(|(_, record)| !record.is_settled() && record.acked > 0)
            .map(|(run, _)| *run);
        if let Some(run) = lost {
            host.disk.remove(&run);
            self.forgotten.insert(run);
        }
    }

    /// After a commit, before anything was told.
    fn kill_server(&mut self) {
        self.lab.restart();
        for host in self.hosts.values_mut() {
            host.session = None;
            host.inbox.clear();
        }
    }

    fn tick(&mut self) {
        self.act(Input::Tick);
    }

    fn receive(&mut self, name: &'static str) {
        let Some(action) = self.hosts.get_mut(name).and_then(|host| host.inbox.pop_front()) else { return };
        let Some(session) = self.hosts[name].session else { return };
        match action {
            Action::Hello { known, missing, .. } => self.on_hello(name, session, &known, missing),
            Action::Start { run, spec, .. } => self.on_start(name, session, run, spec.job_id.map(JobId)),
            Action::Kill { run, .. } => self.on_kill(name, run),
            Action::Pause { run, suspend, .. } => self.on_pause(name, run, suspend),
            Action::Ack { run, seq, .. } => {
                if let Some(record) = self.record(name, run) {
                    record.acked = record.acked.max(seq);
                }
            }
            Action::RefuseSession { .. }
            | Action::AgentGone { .. }
            | Action::Fenced { .. }
            | Action::Resync { .. }
            | Action::Probe { .. }
            | Action::Notice { .. }
            | Action::Warn(_)
            | Action::Defect(_) => {}
        }
    }

    fn on_hello(&mut self, name: &'static str, session: u64, known: &[(RunId, u64)], missing: Vec<RunId>) {
        for (run, seq) in known {
            if let Some(record) = self.record(name, *run) {
                record.acked = *seq;
            }
        }
        for run in missing {
            match self.record(name, run) {
                Some(record) => record.acked = 0,
                None => {
                    self.act(Input::NoRecord { agent: name.to_owned(), session, run });
                }
            }
        }
    }

    fn on_start(&mut self, name: &'static str, session: u64, run: RunId, job: Option<JobId>) {
        if let Some(record) = self.record(name, run) {
            record.acked = 0;
        } else if !self.mending && self.dice.one_in(8) {
            let (agent, kind, reason) = (name.to_owned(), RefusalKind::NoRoom, "disk full".to_owned());
            self.act(Input::Refused { agent, session, run, kind, reason });
        } else if let Some(host) = self.hosts.get_mut(name) {
            host.disk.insert(run, Record { facts: vec![accepted()], job, ..Record::default() });
        }
    }

    fn on_kill(&mut self, name: &'static str, run: RunId) {
        let Some(host) = self.hosts.get_mut(name) else { return };
        let record = host.disk.entry(run).or_default();
        if record.outcome.is_some() {
            record.acked = 0;
            return;
        }
        let started = record.facts.len() > 1;
        let outcome = if started {
            Outcome::Unknown { reason: "stands for a kill".to_owned() }
        } else {
            Outcome::NeverStarted { reason: "canceled".to_owned(), why: Never::Canceled }
        };
        record.facts.push(ended(&outcome));
        record.outcome = Some(outcome);
    }

    /// Recorded only if it is a change, as a supervisor does it.
    fn on_pause(&mut self, name: &'static str, run: RunId, suspend: bool) {
        let Some(record) = self.record(name, run).filter(|record| record.outcome.is_none()) else { return };
        let last = record.facts.iter().rev().find_map(|fact| match fact {
            FactBody::Suspended(_) => Some(true),
            FactBody::Resumed(_) => Some(false),
            FactBody::Accepted(_)
            | FactBody::Started(_)
            | FactBody::Ended(_)
            | FactBody::Note(_)
            | FactBody::Stopping(_)
            | FactBody::Captured(_) => None,
        });
        if record.facts.len() > 1 && last.unwrap_or(false) != suspend {
            record.facts.push(match suspend {
                true => FactBody::Suspended(Suspended::default()),
                false => FactBody::Resumed(Resumed::default()),
            });
        }
    }

    /// One run of the host goes one step on.
    fn work(&mut self, name: &'static str) {
        let code = u8::try_from(self.dice.roll(3)).unwrap_or(0);
        let Some(host) = self.hosts.get_mut(name) else { return };
        let live: Vec<RunId> =
            host.disk.iter().filter(|(_, record)| record.outcome.is_none()).map(|(run, _)| *run).collect();
        let Some(record) = self.dice.pick(&live).and_then(|run| host.disk.get_mut(run)) else { return };
        match record.facts.len() {
            1 => {
                record.facts.push(started());
                if let Some(job) = record.job {
                    *self.executions.entry(job).or_default() += 1;
                }
            }
            _ => {
                let body = exited(code);
                if let FactBody::Ended(body) = &body {
                    record.outcome = Outcome::try_from(body).ok();
                }
                record.facts.push(body);
            }
        }
    }

    /// Sends what was not acknowledged, or a part of it, or everything again.
    fn send(&mut self, name: &'static str) {
        let Some(host) = self.hosts.get(name).filter(|host| host.session.is_some()) else { return };
        if host.inbox.iter().any(|action| matches!(action, Action::Hello { .. })) {
            return; // nothing is sent before the server's answer
        }
        let open: Vec<RunId> =
            host.disk.iter().filter(|(_, record)| !record.is_sent()).map(|(run, _)| *run).collect();
        let Some(&run) = self.dice.pick(&open) else { return };
        let record = &host.disk[&run];
        let from = if self.dice.one_in(4) { 0 } else { record.acked };
        let count = 1 + self.dice.roll(3);
        let now_ms = self.lab.now_ms;
        let fact = |(seq, body): (u64, &FactBody)| {
            FactIn::new(run, seq, Fact::new(now_ms, body.clone()).encode_to_vec())
        };
        let numbered =
            (1..).zip(&record.facts).filter(|(seq, _)| *seq > from).take(usize::try_from(count).unwrap_or(1));
        let facts = numbered.map(fact).collect();
        self.act(Input::Facts { agent: name.to_owned(), facts });
    }

    fn record(&mut self, name: &'static str, run: RunId) -> Option<&mut Record> {
        self.hosts.get_mut(name)?.disk.get_mut(&run)
    }

    /// Hands an input in; a rejection is a fine answer.
    fn act(&mut self, input: Input) -> Option<Reply> {
        let (reply, actions) = self.lab.on(input).ok()?;
        self.deliver(actions);
        Some(reply)
    }

    fn deliver(&mut self, actions: Vec<Action>) {
        for action in actions {
            let (Action::Hello { agent, .. }
            | Action::Start { agent, .. }
            | Action::Kill { agent, .. }
            | Action::Pause { agent, .. }
            | Action::Ack { agent, .. }) = &action
            else {
                continue;
            };
            if let Some(host) = self.hosts.get_mut(agent.as_str()).filter(|host| host.session.is_some()) {
                if let Action::Start { spec, .. } = &action {
                    assert!(
                        spec.needs.unwrap_or(1) <= host.protocol,
                        "an order that its agent cannot honour"
                    );
                }
                host.inbox.push_back(action);
            }
        }
    }

    fn check(&self) {
        let store = &self.lab.store;
        assert_eq!(self.lab.engine.counts(), store.counts());
        for (name, slots) in SLOTS {
            let live = store.runs.values().filter(|run| run.agent == name && !run.status.is_final()).count();
            assert!(live <= slots as usize, "agent {name} has {live} runs in {slots} slots");
            assert_eq!(self.lab.engine.agent(name).map(|agent| agent.used as usize), Some(live));
        }
        let mut live = BTreeSet::new();
        for run in store.runs.values().filter(|run| !run.status.is_final()) {
            assert!(live.insert(run.job), "job {} has two live runs", run.job);
            assert_eq!(store.jobs[&run.job].status, run.status);
        }
        for (job, times) in &self.executions {
            let policy = &store.jobs[job].spec.policy;
            let most = match (policy.restart_safe, &policy.retry) {
                (RestartSafe::AtLeastOnce | RestartSafe::Ask, _) => u32::MAX,
                (RestartSafe::NeverTwice, Some(retry)) => retry.attempts_max,
                (RestartSafe::NeverTwice, None) => 1,
            };
            assert!(*times <= most, "job {job} was executed {times} times");
        }
        if self.lab.now_ms % 16 == 0 {
            self.check_at_leisure();
        }
    }

    /// What takes a walk through everything.
    fn check_at_leisure(&self) {
        let store = &self.lab.store;
        for run in store.runs.values().filter(|run| matches!(run.status, Status::Unknown | Status::Abandoned))
        {
            let job = &store.jobs[&run.job];
            let last = job.attempts == run.attempt || job.spec.policy.restart_safe != RestartSafe::NeverTwice;
            assert!(last, "job {} was placed again after run {} became {}", job.id, run.id, run.status);
        }
        for queue in QUEUES {
            let Some(view) = self.lab.engine.queue(queue) else { continue };
            let of = |status: &dyn Fn(Status) -> bool| {
                store.jobs.values().filter(|job| job.spec.queue == queue && status(job.status)).count() as u64
            };
            assert_eq!(view.active, of(&|status| status == Status::Dispatched || status == Status::Running));
            assert_eq!(view.waiting + view.active, of(&|status| !status.is_final()));
        }
    }

    /// Everything is there again and stays there: what is open must come to its end.
    fn mend(&mut self) {
        self.mending = true;
        for queue in QUEUES {
            self.act(Input::HoldQueue { name: queue.to_owned(), held: false });
            self.act(Input::SetQueue { name: queue.to_owned(), slots: Some(None), priority: None });
            for (agent, _) in SLOTS {
                self.act(Input::Attach { queue: queue.to_owned(), agent: agent.to_owned() });
            }
        }
        let held: Vec<JobId> =
            self.lab.store.jobs.values().filter(|j| j.status == Status::Held).map(|j| j.id).collect();
        for job in held {
            self.act(Input::ReleaseJob { job });
        }
        for (name, _) in SLOTS {
            self.connect(name);
        }
        for _ in 0..20 * self.submitted {
            self.lab.now_ms += 1_000;
            self.tick();
            let asking: Vec<JobId> =
                self.lab.store.jobs.values().filter(|j| j.status == Status::Waiting).map(|j| j.id).collect();
            for job in asking {
                self.act(Input::RestartJob(self.lab.restart_job(job)));
            }
            for (name, _) in SLOTS {
                while !self.hosts[name].inbox.is_empty() {
                    self.receive(name);
                }
                self.work(name);
                self.send(name);
            }
            if self.lab.store.counts().iter().all(|(status, count)| status.is_final() || count == 0) {
                break;
            }
        }
        self.check();
        self.check_at_leisure();
    }

    fn check_outcomes(&self) {
        for (name, host) in &self.hosts {
            for (run, record) in &host.disk {
                let Some(told) = self.lab.store.runs.get(run) else { continue };
                let Some(outcome) = record.outcome.as_ref().filter(|_| !self.forgotten.contains(run)) else {
                    continue;
                };
                assert_eq!(
                    (told.status, told.exit_code),
                    (outcome.status(), outcome.exit_code()),
                    "run {run} on {name}"
                );
            }
        }
    }
}

impl Record {
    fn is_sent(&self) -> bool {
        self.acked >= self.facts.len() as u64
    }

    fn is_settled(&self) -> bool {
        self.outcome.is_some() && self.is_sent()
    }
}
