//! What a seed makes: hosts, jobs, the ways between them, and everything that goes wrong, until a certain moment.

use crate::mutation::Mutation;
use crate::net::Way;
use crate::queue::Ms;
use crate::rng::Rng;
use crate::world::{Event, World};
use job::{JobId, Policy, Retry};
use protocol::RunSpec;
use scheduler::{Input, JobSpec};

/// Nothing goes wrong after that.
pub(crate) const FAULTS_UNTIL_MS: Ms = 60_000;
/// Then everything has to be settled.
pub(crate) const END_MS: Ms = 300_000;
/// Jobs come until then.
const JOBS_UNTIL_MS: Ms = 50_000;
/// Nothing goes wrong before.
const FAULTS_FROM_MS: Ms = 200;
/// Numbers of kinds of faults; what comes more often has several.
const KINDS: u64 = 24;
/// What an agent says when its disk is full.
pub(crate) const DISK_FULL: &str = "disk full";
/// A program that cannot be executed.
pub(crate) const ABSENT: &str = "/absent";

/// What a job does, as its command line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behavior {
    pub(crate) is_absent: bool,
    pub(crate) duration_ms: Ms,
    pub(crate) code: u8,
    pub(crate) is_polite: bool,
    pub(crate) notes: u64,
}

impl Behavior {
    pub(crate) fn of(spec: &RunSpec) -> Behavior {
        let number = |at: usize| -> u64 {
            let text = spec.command.get(at).map(|word| String::from_utf8_lossy(word).into_owned());
            text.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        Behavior {
            is_absent: crate::oracle::is_absent(&spec.command),
            duration_ms: number(1),
            code: u8::try_from(number(2)).unwrap_or(1),
            is_polite: number(3) == 1,
            notes: number(4),
        }
    }

    fn command(self) -> Vec<Vec<u8>> {
        let program = if self.is_absent { ABSENT } else { "/job" };
        let numbers = [self.duration_ms, u64::from(self.code), u64::from(self.is_polite), self.notes];
        [program.to_owned()]
            .into_iter()
            .chain(numbers.map(|n| n.to_string()))
            .map(String::into_bytes)
            .collect()
    }
}

/// What does not change while the simulation goes.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Names and slots.
    pub(crate) agents: Vec<(String, u32)>,
    pub(crate) server_dials: bool,
    pub(crate) jobs: u64,
    /// How often something goes wrong, on average every so many milliseconds.
    pub(crate) calm_ms: Ms,
    /// What may go wrong, as [`World::any_fault`] numbers it. Only some of it in most simulations, so that it meets more often.
    kinds: Vec<u64>,
}

impl Scenario {
    pub(crate) fn new(rng: &mut Rng, near: Option<Mutation>) -> Scenario {
        let agents = rng.range(1, 4);
        let agents = (1..=agents).map(|n| (format!("agent{n}"), u32::try_from(rng.range(1, 5)).unwrap_or(1)));
        Scenario {
            agents: agents.collect(),
            server_dials: rng.percent(40)
                || matches!(near, Some(Mutation::LowerEpoch | Mutation::ForgetRefusals)),
            jobs: if near.is_some() { rng.range(20, 50) } else { rng.range(3, 30) },
            calm_ms: if near == Some(Mutation::ForgetRefusals) || rng.percent(30) {
                rng.range(200, 700)
            } else {
                rng.range(700, 8_000)
            },
            kinds: near.and_then(kinds_near).unwrap_or_else(|| kinds(rng)),
        }
    }
}

/// What brings the consequence of a broken rule about that would be a rare one otherwise; the numbers are those of [`World::any_fault`].
fn kinds_near(rule: Mutation) -> Option<Vec<u64>> {
    match rule {
        Mutation::LowerEpoch => Some(vec![0, 1, 14, 15]),
        Mutation::ForgetRefusals => Some(vec![0, 4, 10, 13, 14, 15, 17, 17, 17]),
        Mutation::TrustChild => Some(vec![6, 7, 8, 17, 20, 21]),
        Mutation::GateBeforeStarted | Mutation::TellBeforeSync => Some(vec![6, 10, 11, 12, 21]),
        Mutation::ForgetRoom => Some(vec![13, 14, 15, 16, 16]),
        Mutation::AckBeforeCommit
        | Mutation::SettleBeforeAck
        | Mutation::ForgetDedup
        | Mutation::NoDirectorySync => None,
    }
}

/// All of them, or about a half, or a few.
fn kinds(rng: &mut Rng) -> Vec<u64> {
    let chances = [100, 50, 20][rng.index(3)];
    let mut kinds: Vec<u64> = (0..KINDS).filter(|_| rng.percent(chances)).collect();
    if kinds.is_empty() {
        kinds.push(rng.below(KINDS));
    }
    kinds
}

pub(crate) fn way(rng: &mut Rng) -> Way {
    let slow = rng.percent(20);
    Way {
        latency_ms: if slow { rng.range(100, 3_000) } else { rng.range(0, 30) },
        jitter_ms: if slow { rng.range(0, 4_000) } else { rng.range(0, 50) },
        lost_percent: if rng.percent(50) { rng.below(20) } else { 0 },
        doubled_percent: if rng.percent(50) { rng.below(20) } else { 0 },
        cut_until_ms: 0,
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    KillServer,
    KillMonitor(usize),
    KillNp(usize),
    KillJp(usize),
    KillAll(usize),
    PowerCut(usize),
    Partition(usize),
    OtherWay(usize),
    FullDisk(usize),
    RoomAgain(usize),
    FailingWrites(usize),
    FailingSync(usize),
    FailingReads(usize),
    SlowDisk(usize),
    DatabaseFails,
    DatabaseWorks,
    SlowCommits,
    NoProcesses,
    Mend,
}

impl World {
    /// Plans jobs and faults.
    pub(crate) fn plan(&mut self) {
        self.queue.at(0, Event::ServerStart);
        for host in 0..self.hosts.len() {
            self.queue.after(1, Event::MonitorStart { host });
        }
        for n in 0..self.scenario.jobs {
            self.plan_job(n);
        }
        let mut at_ms = FAULTS_FROM_MS + self.rng.below(4_000);
        while at_ms < FAULTS_UNTIL_MS {
            let fault = self.any_fault();
            self.queue.at(at_ms, Event::Fault(fault));
            at_ms += self.rng.below(2 * self.scenario.calm_ms) + 1;
        }
        self.queue.at(FAULTS_UNTIL_MS, Event::Fault(Fault::Mend));
    }

    fn plan_job(&mut self, n: u64) {
        let at_ms = self.rng.below(JOBS_UNTIL_MS);
        let rng = &mut self.rng;
        let duration_ms = match rng.below(4) {
            0 => rng.range(0, 40),
            1 => rng.range(40, 400),
            2 => rng.range(400, 3_000),
            _ => rng.range(1_000, 15_000),
        };
        let behavior = Behavior {
            is_absent: rng.percent(6),
            duration_ms,
            code: if rng.percent(60) { 0 } else { u8::try_from(rng.range(1, 250)).unwrap_or(1) },
            is_polite: rng.percent(70),
            notes: if rng.percent(15) { rng.range(1, 6) } else { 0 },
        };
        let retry = Retry {
            attempts_max: 3,
            backoff_ms: 500,
            backoff_max_ms: 2_000,
            factor_percent: 200,
            on: Vec::new(),
        };
        let spec = JobSpec {
            queue: "default".to_owned(),
            command: behavior.command(),
            submitted_by: "somebody".to_owned(),
            idempotency_key: Some(format!("request {n}")),
            timeout_ms: rng.percent(20).then(|| rng.range(100, 5_000)),
            grace_ms: Some(rng.range(0, 3_000)),
            agent: rng
                .percent(20)
                .then(|| self.scenario.agents[rng.index(self.scenario.agents.len())].0.clone()),
            policy: Policy { retry: rng.percent(20).then_some(retry), ..Policy::default() },
            ..JobSpec::default()
        };
        self.queue.at(at_ms, Event::Request(Box::new(Input::Submit(vec![spec.clone()]))));
        // Whoever was not answered asks again, until he is: a request may be repeated at any time.
        let again_ms = at_ms + self.rng.range(100, 20_000);
        self.queue.at(again_ms, Event::Request(Box::new(Input::Submit(vec![spec.clone()]))));
        self.queue.at(FAULTS_UNTIL_MS + 10_000, Event::Request(Box::new(Input::Submit(vec![spec]))));
        if self.rng.percent(20) {
            let kill_ms = at_ms + self.rng.below(10_000);
            let job = JobId(n + 1);
            let grace_ms = self.rng.percent(50).then(|| self.rng.below(2_000));
            let input = match self.rng.percent(80) {
                true => Input::KillJob { job, by: "somebody".to_owned(), grace_ms },
                false => Input::CancelJob { job, by: "somebody".to_owned() },
            };
            self.queue.at(kill_ms, Event::Request(Box::new(input)));
        }
    }

    fn any_fault(&mut self) -> Fault {
        let host = self.rng.index(self.hosts.len());
        let kind = self.scenario.kinds[self.rng.index(self.scenario.kinds.len())];
        match kind {
            0 | 1 => Fault::KillServer,
            2 | 3 => Fault::KillMonitor(host),
            4 | 5 => Fault::KillNp(host),
            6..=8 => Fault::KillJp(host),
            9 => Fault::KillAll(host),
            10..=12 => Fault::PowerCut(host),
            13 => Fault::Partition(host),
            14 | 15 => Fault::OtherWay(host),
            16 => Fault::FullDisk(host),
            17 => Fault::FailingWrites(host),
            18 | 19 => Fault::FailingSync(host),
            20 => Fault::FailingReads(host),
            21 => Fault::SlowDisk(host),
            22 => {
                if self.rng.percent(50) {
                    Fault::DatabaseFails
                } else {
                    Fault::NoProcesses
                }
            }
            _ => Fault::SlowCommits,
        }
    }

    pub(crate) fn on_fault(&mut self, fault: Fault) {
        let now_ms = self.queue.now_ms();
        match fault {
            Fault::KillServer => self.kill_server(),
            Fault::KillMonitor(host) => self.kill_monitor(host),
            Fault::KillNp(host) => self.kill_np(host),
            Fault::KillJp(host) => drop(self.kill_any_jp(host)),
            Fault::KillAll(host) => {
                while self.kill_any_jp(host) {}
                self.kill_np(host);
                self.kill_monitor(host);
            }
            Fault::PowerCut(host) => self.on_power_cut(host),
            Fault::Partition(host) => self.ways[host].cut_until_ms = now_ms + self.rng.range(200, 30_000),
            Fault::OtherWay(host) => {
                let cut_until_ms = self.ways[host].cut_until_ms;
                self.ways[host] = Way { cut_until_ms, ..way(&mut self.rng) };
            }
            Fault::FullDisk(host) => {
                self.hosts[host].disk.borrow_mut().faults.full = true;
                let delay_ms = self.rng.range(500, 8_000);
                self.queue.after(delay_ms, Event::Fault(Fault::RoomAgain(host)));
            }
            Fault::RoomAgain(host) => self.hosts[host].disk.borrow_mut().faults.full = false,
            Fault::FailingWrites(host) => {
                let count = u32::try_from(self.rng.range(1, 4)).unwrap_or(1);
                self.hosts[host].disk.borrow_mut().faults.failing_writes = count;
            }
            Fault::FailingSync(host) => self.hosts[host].disk.borrow_mut().faults.failing_syncs = 1,
            Fault::FailingReads(host) => {
                let count = u32::try_from(self.rng.range(1, 4)).unwrap_or(1);
                self.hosts[host].disk.borrow_mut().faults.failing_reads = count;
            }
            Fault::SlowDisk(host) => {
                let sync_ms =
                    if self.rng.percent(50) { self.rng.range(1, 20) } else { self.rng.range(50, 1_500) };
                self.hosts[host].disk.borrow_mut().faults.sync_ms = sync_ms;
            }
            Fault::DatabaseFails => {
                self.database_fails = true;
                let delay_ms = self.rng.range(100, 5_000);
                self.queue.after(delay_ms, Event::Fault(Fault::DatabaseWorks));
            }
            Fault::DatabaseWorks => self.database_fails = false,
            Fault::SlowCommits => self.commit_ms = self.rng.range(1, 800),
            Fault::NoProcesses => self.no_process_percent = 30,
            Fault::Mend => self.mend(),
        }
    }

    fn kill_any_jp(&mut self, host: usize) -> bool {
        let jps: Vec<u32> = self.hosts[host].jps.keys().copied().collect();
        if jps.is_empty() {
            return false;
        }
        let jp = jps[self.rng.index(jps.len())];
        self.on_jp_gone(host, jp, false);
        true
    }

    fn mend(&mut self) {
        (self.database_fails, self.commit_ms, self.no_process_percent) = (false, 5, 0);
        for host in 0..self.hosts.len() {
            self.ways[host] = Way { latency_ms: 5, jitter_ms: 5, ..Way::default() };
            let mut disk = self.hosts[host].disk.borrow_mut();
            disk.faults = crate::disk::Faults { sync_ms: 2, ..crate::disk::Faults::default() };
        }
    }
}
