//! Two and three processes that die at the same moment: one at a named point, where it stands still until the others do, and with it the others.
//! And chains, where each dies at a point of its own. Many cases share one site, one after the other.

use crate::oracle::{another_network_processor, job_processor, kill_together};
use Told::{CannotExecute, Exact, KernelTells, PerhapsNever, PerhapsUnknown};
use Way::{Accepted, Adopted, Committed, Inherited, Orphaned, Replaced, Submitted, Unexecutable};
use Who::{JobProcessor, Monitor, NetworkProcessor, Server};
use anyhow::{Context, Result};
use api::{Job, JobSubmit, Status};
use os::signal::Signal;
use std::path::Path;
use tests::{
    CrashPoint, Deed, End, Part, Process, Site, Tally, gated_job, keeps_exit_information, ledger_job,
    on_site, wait_for, wait_until,
};

/// So long a job that is not gated runs, milliseconds: long enough to be seen by everybody.
const RUNS_MS: u64 = 60;

/// Who dies too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    JobProcessor,
    NetworkProcessor,
    Monitor,
    Server,
}

/// How a process is brought to the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A job is submitted and ends by itself.
    Submitted,
    /// A job is submitted that ends when all is well again.
    Accepted,
    /// The job-processor of a running job dies.
    Adopted,
    /// It dies when the network-processor that started it is dead, and the job ends.
    Orphaned,
    /// A running job ends, and that is committed.
    Committed,
    /// A job is submitted whose program does not exist.
    Unexecutable,
    /// The monitor is told to replace itself while a job runs.
    Replaced,
    /// The same while it watches the job: the job-processor is dead, and so is the network-processor that started it.
    Inherited,
}

/// What may be said of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Executed once, and its own end.
    Exact,
    /// That, or that it never started, if it did not.
    PerhapsNever,
    /// That, or Unknown: whoever could see its end was dead.
    PerhapsUnknown,
    /// Never executed, and why.
    CannotExecute,
    /// Exact or Unknown, but exact where the kernel tells whoever holds a pidfd (Linux 6.15 and later).
    KernelTells,
}

/// A point and who dies there, at its how manyth passing, how it is reached, and who else dies with what result.
type Row = (&'static str, u32, Way, &'static [(&'static [Who], Told)]);

/// Before STARTED is on disk, or after ENDED is, nobody is needed who saw anything.
const OF_A_JOB_PROCESSOR: &[(&[Who], Told)] = &[
    (&[NetworkProcessor], Exact),
    (&[Monitor], Exact),
    (&[Server], Exact),
    (&[NetworkProcessor, Monitor], Exact),
];
/// Between: one of the three has to live.
const WHILE_THE_JOB_RUNS: &[(&[Who], Told)] = &[
    (&[NetworkProcessor], Exact),
    (&[Monitor], Exact),
    (&[Server], Exact),
    (&[NetworkProcessor, Monitor], PerhapsUnknown),
];
const ANNOUNCED: &[(&[Who], Told)] = &[
    (&[NetworkProcessor], PerhapsNever),
    (&[Monitor], PerhapsNever),
    (&[Server], PerhapsNever),
    (&[NetworkProcessor, Monitor], PerhapsNever),
];
const OF_A_NETWORK_PROCESSOR: &[(&[Who], Told)] =
    &[(&[Monitor], Exact), (&[Server], Exact), (&[Monitor, Server], Exact)];
const OF_BOTH_AT_WORK: &[(&[Who], Told)] =
    &[(&[JobProcessor], Exact), (&[JobProcessor, Server], Exact), (&[JobProcessor, Monitor], PerhapsUnknown)];
const OF_AN_ADOPTER: &[(&[Who], Told)] = &[(&[Monitor], PerhapsUnknown), (&[Server], Exact)];
const OF_A_MONITOR_THAT_SAW: &[(&[Who], Told)] =
    &[(&[NetworkProcessor], PerhapsUnknown), (&[Server], KernelTells)];
const OF_A_MONITOR_THAT_WROTE: &[(&[Who], Told)] = &[(&[NetworkProcessor], Exact), (&[Server], Exact)];
/// The child itself writes it down if nobody else is left.
const OF_A_PROGRAM_THAT_IS_NOT_THERE: &[(&[Who], Told)] = &[
    (&[NetworkProcessor], CannotExecute),
    (&[Monitor], CannotExecute),
    (&[Server], CannotExecute),
    (&[NetworkProcessor, Monitor], CannotExecute),
];
const OF_A_MONITOR_AMID_ITS_REPLACEMENT: &[(&[Who], Told)] = &[
    (&[JobProcessor], Exact),
    (&[NetworkProcessor], Exact),
    (&[Server], Exact),
    (&[JobProcessor, Server], Exact),
    (&[JobProcessor, NetworkProcessor], PerhapsUnknown),
];
const OF_A_WATCHING_MONITOR_AMID_ITS_REPLACEMENT: &[(&[Who], Told)] =
    &[(&[NetworkProcessor], PerhapsUnknown), (&[Server], KernelTells)];
const OF_A_SERVER: &[(&[Who], Told)] =
    &[(&[NetworkProcessor], Exact), (&[Monitor], Exact), (&[NetworkProcessor, Monitor], Exact)];

const TABLE: &[Row] = &[
    ("start.after-lock", 1, Submitted, OF_A_JOB_PROCESSOR),
    ("start.after-fork", 1, Submitted, OF_A_JOB_PROCESSOR),
    ("start.after-handover", 1, Submitted, OF_A_JOB_PROCESSOR),
    ("log.torn-write", 2, Submitted, OF_A_JOB_PROCESSOR), // STARTED
    ("start.after-started", 1, Submitted, ANNOUNCED),
    ("start.after-gate", 1, Submitted, WHILE_THE_JOB_RUNS),
    ("end.before-wait", 1, Submitted, WHILE_THE_JOB_RUNS),
    ("end.before-ended", 1, Submitted, WHILE_THE_JOB_RUNS),
    ("log.torn-write", 3, Submitted, WHILE_THE_JOB_RUNS), // ENDED
    ("end.before-wake", 1, Submitted, OF_A_JOB_PROCESSOR),
    ("end.after-ended", 1, Submitted, OF_A_JOB_PROCESSOR),
    ("end.after-reap", 1, Submitted, OF_A_JOB_PROCESSOR),
    ("accept.after-mkdir", 1, Submitted, OF_A_NETWORK_PROCESSOR),
    ("log.torn-write", 1, Submitted, OF_A_NETWORK_PROCESSOR), // the log
    ("accept.after-log-sync", 1, Submitted, OF_A_NETWORK_PROCESSOR),
    ("accept.after-rename", 1, Submitted, OF_A_NETWORK_PROCESSOR),
    ("accept.after-directory-sync", 1, Submitted, OF_A_NETWORK_PROCESSOR),
    ("ack.after-send", 1, Submitted, OF_A_NETWORK_PROCESSOR),
    ("ack.after-send", 1, Accepted, OF_BOTH_AT_WORK),
    ("ack.on-receipt", 1, Submitted, OF_A_NETWORK_PROCESSOR),
    ("ack.before-rename", 1, Submitted, OF_A_NETWORK_PROCESSOR),
    ("recover.on-adoption", 1, Adopted, OF_AN_ADOPTER),
    ("orphan.before-record", 1, Orphaned, OF_A_MONITOR_THAT_SAW),
    ("orphan.after-record", 1, Orphaned, OF_A_MONITOR_THAT_WROTE),
    ("start.before-cannot-execute", 1, Unexecutable, OF_A_PROGRAM_THAT_IS_NOT_THERE),
    ("monitor.amid-reexec", 1, Replaced, OF_A_MONITOR_AMID_ITS_REPLACEMENT),
    ("monitor.amid-reexec", 1, Inherited, OF_A_WATCHING_MONITOR_AMID_ITS_REPLACEMENT),
    ("commit.before", 1, Committed, OF_A_SERVER),
    ("commit.after", 1, Committed, OF_A_SERVER),
];

/// Points at which one after the other dies, each at its how manyth passing.
const CHAINS: &[(&[(&str, u32)], Told)] = &[
    (&[("accept.after-mkdir", 1), ("recover.amid-sweep", 1)], Exact),
    (&[("accept.after-rename", 1), ("start.after-lock", 1)], Exact),
    (&[("accept.after-rename", 1), ("recover.amid-scan", 1)], Exact),
    (&[("accept.after-directory-sync", 1), ("start.after-fork", 1)], Exact),
    (&[("start.after-lock", 1), ("ack.after-send", 1)], Exact),
    (&[("start.after-handover", 1), ("start.after-lock", 2)], Exact),
    (&[("start.after-gate", 1), ("recover.on-adoption", 1)], Exact),
    (&[("end.before-wait", 1), ("recover.on-adoption", 1)], Exact),
    (&[("end.before-ended", 1), ("recover.on-adoption", 1)], Exact),
    (&[("log.torn-write", 3), ("recover.on-adoption", 1)], Exact),
    (&[("end.before-ended", 1), ("recover.on-adoption", 1), ("orphan.after-record", 1)], Exact),
    (&[("end.before-ended", 1), ("recover.on-adoption", 1), ("orphan.before-record", 1)], PerhapsUnknown),
    (&[("end.before-wake", 1), ("ack.on-receipt", 1)], Exact),
    (&[("end.after-ended", 1), ("ack.before-rename", 1)], Exact),
    (&[("end.after-ended", 1), ("commit.before", 2)], Exact),
    (&[("start.after-fork", 1), ("commit.after", 2)], Exact),
    (&[("ack.after-send", 1), ("commit.before", 2)], Exact),
    (&[("ack.on-receipt", 1), ("commit.after", 2)], Exact),
    (&[("accept.after-directory-sync", 1), ("commit.before", 2), ("end.before-ended", 1)], Exact),
];

#[test]
fn whoever_dies_with_a_job_processor_its_job_is_executed_once_and_told_truly() {
    together("two or three deaths at once, one of them a job-processor's, lose no outcome", |way, name| {
        matches!(way, Submitted | Unexecutable) && is_a_job_processors(name)
    });
}

#[test]
fn whoever_dies_with_an_agents_other_processes_or_the_server_no_outcome_is_lost_or_invented() {
    together("two or three deaths at once among the other processes lose no outcome", |way, name| {
        !matches!(way, Submitted | Unexecutable) || !is_a_job_processors(name)
    });
}

fn is_a_job_processors((name, nth): (&str, u32)) -> bool {
    name.starts_with("start.") || name.starts_with("end.") || (name == "log.torn-write" && nth > 1)
}

fn together(promise: &str, takes: impl Fn(Way, (&str, u32)) -> bool) {
    let mut tally = Tally::new(Part::CrashPoints, promise);
    on_site(|site| {
        for (name, nth, way, partners) in TABLE.iter().filter(|(name, nth, way, _)| takes(*way, (name, *nth)))
        {
            for (also, told) in *partners {
                let label = format!("{name} ({nth}), {also:?}");
                let case = Case { site, point: name, nth: *nth, label: &label };
                case.run(*way, also, *told, &mut tally).with_context(|| label.clone())?;
            }
        }
        Ok(())
    });
    tally.kept();
}

struct Case<'a> {
    site: &'a mut Site,
    point: &'a str,
    nth: u32,
    label: &'a str,
}

impl Case<'_> {
    fn run(self, way: Way, also: &[Who], told: Told, tally: &mut Tally) -> Result<()> {
        let point = CrashPoint::new(self.point, self.site.path());
        let site = self.site;
        let (id, gate) = match way {
            Submitted => {
                point.arm_with(Deed::Stop, self.nth)?;
                let way = tests::Way { sleep_ms: RUNS_MS, end: crate::oracle::SEVEN };
                (site.client().submit(&ledger_job(site.ledger().path(), way)?)?, None)
            }
            Accepted => {
                point.arm_with(Deed::Stop, self.nth)?;
                let gate = site.path().join(self.label.replace(['.', ' '], "-"));
                let job = gated_job(site.ledger().path(), &gate, crate::oracle::SEVEN)?;
                (site.client().submit(&job)?, Some(gate))
            }
            Unexecutable => {
                point.arm_with(Deed::Stop, self.nth)?;
                let command = vec!["/no/such/program".to_owned()];
                (site.client().submit(&JobSubmit { command, ..JobSubmit::default() })?, None)
            }
            Adopted | Orphaned | Committed => {
                let gate = site.path().join(self.label.replace(['.', ' '], "-"));
                let (id, run_id) = gated(site, &gate)?;
                if way == Orphaned {
                    another_network_processor(site)?;
                }
                point.arm_with(Deed::Stop, self.nth)?;
                if way != Committed {
                    job_processor(site, &run_id)?.kill()?;
                }
                if way != Adopted {
                    std::fs::write(&gate, "")?;
                }
                (id, Some(gate))
            }
            Replaced | Inherited => {
                let gate = site.path().join(format!("{way:?}-{}", self.label.replace(['.', ' '], "-")));
                let (id, run_id) = gated(site, &gate)?;
                if way == Inherited {
                    another_network_processor(site)?;
                    watched_by_the_monitor(site, &run_id)?;
                }
                point.arm_with(Deed::Stop, self.nth)?;
                find(site, Monitor)?.signal(Signal::USR2)?;
                (id, Some(gate))
            }
        };
        let mut going = vec![point.wait_stopped()?];
        for who in also {
            going.push(find(site, *who)?);
        }
        kill_together(&going)?;
        wait_until("all of them to be gone", || Ok(!going.iter().any(Process::lives)))?;
        wait_until("what nothing else starts again to be there again", || {
            site.revive()?; // also one whose last threads are still on their way out
            let there = [site.server.process(), site.agent()?.monitor()];
            Ok(there.iter().all(|process| process.as_ref().is_some_and(|process| !going.contains(process))))
        })?;
        if let Some(gate) = gate {
            site.wait_connected("host1")?;
            std::fs::write(gate, "")?;
        }
        tally.count("pairs of deaths", u64::from(also.len() == 1));
        tally.count("triples of deaths", u64::from(also.len() == 2));
        settle(site, id, told, tally)
    }
}

/// A job that runs until its own gate is opened: its number and run.
fn gated(site: &Site, gate: &Path) -> Result<(u64, String)> {
    let id = site.client().submit(&gated_job(site.ledger().path(), gate, crate::oracle::SEVEN)?)?;
    let run_id = site.client().wait_running(id)?.runs[0].run_id.clone();
    wait_for("the job to begin", || Ok(site.ledger().of(id)?.pop()))?;
    Ok((id, run_id))
}

/// Its job-processor dies, and the monitor watches the job.
fn watched_by_the_monitor(site: &mut Site, run_id: &str) -> Result<()> {
    let watched =
        |site: &mut Site| anyhow::Ok(site.agent()?.trace().matches("its job is watched here").count());
    let before = watched(site)?;
    job_processor(site, run_id)?.kill()?;
    wait_until("the monitor to watch the orphan", || Ok(watched(site)? > before))
}

fn find(site: &mut Site, who: Who) -> Result<Process> {
    match who {
        JobProcessor => site.agent()?.job_processors()?.pop(),
        NetworkProcessor => site.agent()?.network_processor()?,
        Monitor => site.agent()?.monitor(),
        Server => site.server.process(),
    }
    .with_context(|| format!("no {who:?}"))
}

/// Waits for the job's end, whatever has to be started for it, and compares.
fn settle(site: &mut Site, id: u64, told: Told, tally: &mut Tally) -> Result<()> {
    let job = wait_for("the job to be over", || {
        site.revive()?;
        // Asked once: whoever is to answer may have to be started again first.
        let answer = site.client().try_call("GET", &format!("/api/v1/jobs/{id}"), None);
        let job = answer.and_then(|answer| answer.json::<Job>()).ok();
        Ok(job.filter(|job| job.status.0.is_final()))
    })?;
    site.wait_connected("host1")?;
    tally.count("jobs compared", 1);
    compare(site, &job, told, tally)
}

fn compare(site: &Site, job: &Job, told: Told, tally: &mut Tally) -> Result<()> {
    let executions = site.ledger().of(job.id)?;
    let what = format!("{told:?}: {executions:?} {job:#?}");
    anyhow::ensure!(executions.len() <= 1, "executed more than once: {what}");
    let said = |text: &str| job.reason.as_ref().is_some_and(|reason| reason.contains(text));
    let outcome = (job.status.0, job.exit_code, job.signal);
    let may_be_unknown = match told {
        Exact | PerhapsNever | CannotExecute => false,
        PerhapsUnknown => true,
        KernelTells => !keeps_exit_information(),
    };
    if may_be_unknown && outcome == (Status::Unknown, None, None) && said("nobody saw") {
        tally.count("outcomes unknown with a true reason", 1);
        return Ok(());
    }
    if told == CannotExecute {
        anyhow::ensure!(executions.is_empty() && outcome == (Status::Error, None, None), "{what}");
        anyhow::ensure!(said("could not be executed"), "{what}");
        return Ok(());
    }
    if told == PerhapsNever && executions.is_empty() {
        tally.count("jobs that never started and say so", 1);
        anyhow::ensure!(outcome == (Status::Error, None, None) && said("never"), what);
        return Ok(());
    }
    anyhow::ensure!(executions.len() == 1 && executions[0].end == Some(End::Code(7)), what);
    anyhow::ensure!(End::Code(7).fits(job), "another outcome than the job's: {what}");
    Ok(())
}

#[test]
fn a_death_at_one_point_and_the_next_at_another_lose_no_outcome() {
    let mut tally =
        Tally::new(Part::CrashPoints, "deaths at one named point after the other lose no outcome");
    on_site(|site| {
        for (points, told) in CHAINS {
            let armed: Vec<CrashPoint> =
                points.iter().map(|(name, _)| CrashPoint::new(name, site.path())).collect();
            for (point, (_, nth)) in armed.iter().zip(*points) {
                point.arm_with(Deed::Kill, *nth)?;
            }
            let id = submit_surely(site, &format!("{points:?}"))?;
            let done = chain(site, &armed, id, *told, &mut tally);
            done.with_context(|| format!("{points:?}"))?;
            tally.count("crash points hit", points.len() as u64);
        }
        Ok(())
    });
    tally.kept();
}

/// The server may die of a commit that has nothing to do with the job, before it has answered.
fn submit_surely(site: &mut Site, key: &str) -> Result<u64> {
    let way = tests::Way { sleep_ms: RUNS_MS, end: crate::oracle::SEVEN };
    let job = ledger_job(site.ledger().path(), way)?;
    let job = serde_json::to_value(api::JobSubmit { idempotency_key: Some(key.to_owned()), ..job })?;
    wait_for("the server to take the job", || {
        site.revive()?;
        let answer = site.client().try_call("POST", "/api/v1/jobs", Some(&job));
        Ok(answer.and_then(|answer| answer.json::<Job>()).ok().map(|job| job.id))
    })
}

fn chain(site: &mut Site, armed: &[CrashPoint], id: u64, told: Told, tally: &mut Tally) -> Result<()> {
    for point in armed {
        wait_until("the next one to die", || {
            site.revive()?;
            Ok(point.fired()?.is_some())
        })?;
        point.wait_fired()?;
    }
    settle(site, id, told, tally)
}
