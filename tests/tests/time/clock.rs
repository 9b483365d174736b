//! Clocks that are set by a year, forward and back, while jobs run, wait and end.

use anyhow::{Context, Result, ensure};
use api::{EventList, JobSubmit, Retry, Span, Status};
use spool::Shelf;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tests::{Dialling, End, Jobs, Part, Random, Site, Tally, on_empty_site, seed, wait_until};

pub(crate) const YEAR: i64 = 365 * 24 * 3_600;
const JOBS: usize = 6;
const SLEEP_MS_MAX: u64 = 800;
const TIMEOUT_MS: u64 = 3_000;
/// How long a retry and a delayed job wait.
const PAUSE_MS: u64 = 2_000;
/// The clocks of server and agent, seconds: as they are set one after the other. First forward, until the rounds of retention have been; then back.
const FORWARD: [(i64, i64); 3] = [(0, YEAR), (YEAR, YEAR), (YEAR, 0)];
const BACK: [(i64, i64); 5] = [(0, YEAR), (0, 0), (-YEAR, 0), (-YEAR, -YEAR), (0, 0)];

/// A wall clock that a test sets.
pub(crate) struct Clock(PathBuf);

impl Clock {
    pub(crate) fn new(site: &Site, whose: &str) -> Result<Clock> {
        let clock = Clock(site.path().join(format!("{whose}.clock")));
        clock.set(0)?;
        Ok(clock)
    }

    /// Wrong by so many seconds from now on.
    pub(crate) fn set(&self, seconds: i64) -> Result<()> {
        Ok(os::disk::replace(&self.0, seconds.to_string().as_bytes(), 0o644)?)
    }

    pub(crate) fn environment(&self) -> (String, String) {
        ("LASTWORD_TEST_CLOCK_FILE".to_owned(), self.0.to_string_lossy().into_owned())
    }
}

/// `host1` has the agent's clock, and keeps what settled for seven days. `host2` has the right time, and keeps nothing.
struct Lab<'a> {
    site: &'a mut Site,
    server: Clock,
    agent: Clock,
    jobs: Jobs,
    random: Random,
    jumps: u64,
    /// Jobs beside those of the ledger.
    others: u64,
}

#[test]
fn clocks_that_are_set_by_a_year_lose_nothing_remove_nothing_and_let_nobody_wait_for_a_year() {
    on_empty_site(|site| {
        let promise = "clocks that are set by a year, forward and back, change no outcome, end nothing early and let nothing wait";
        let mut tally = Tally::new(Part::TimeAndIdentity, promise);
        tally.seed(seed());
        let mut lab = Lab::new(site)?;
        let first = lab.first_event()?;
        for (server, agent) in FORWARD {
            lab.round(server, agent)?;
        }
        // The server's rounds come once a minute, the agents' too, and host2 was the last to start.
        wait_until("the round of retention on host2", || Ok(lab.site.agents[1].count(Shelf::Settled) == 0))
            .or_else(|_| {
            wait_until(
                "the round of retention on host2",
                || Ok(lab.site.agents[1].count(Shelf::Settled) == 0),
            )
        })?;
        ensure!(lab.first_event()? == first, "events were forgotten because the clock was wrong");
        ensure!(lab.site.client().list()?.len() as u64 == lab.jobs.count() + lab.others, "jobs were deleted");
        let settled = lab.site.agents[0].count(Shelf::Settled) as u64;
        ensure!(
            settled >= lab.jobs.count() / 2,
            "{settled} settled runs are left on host1: some were removed too early"
        );
        for (server, agent) in BACK {
            lab.round(server, agent)?;
        }
        // Back while no server runs.
        lab.round(YEAR, YEAR)?;
        lab.site.server.stop()?;
        lab.server.set(0)?;
        lab.start_server()?;
        lab.round(0, 0)?;
        tally.count("clock jumps", lab.jumps);
        tally.count("jobs compared", lab.jobs.compare(lab.site)? + lab.others);
        tally.kept();
        Ok(())
    });
}

impl Lab<'_> {
    fn new(site: &mut Site) -> Result<Lab<'_>> {
        let (server, agent) = (Clock::new(site, "server")?, Clock::new(site, "agent")?);
        site.server.stop()?;
        let mut lab =
            Lab { site, server, agent, jobs: Jobs::new(), random: Random::from_seed(), jumps: 0, others: 0 };
        lab.start_server()?;
        lab.site.add_agent_with("host1", Dialling::In, &[lab.agent.environment()])?;
        let mut second = lab.site.prepare_agent("host2", Dialling::In)?;
        second.configure("settled_retention = \"1s\"\n");
        lab.site.add_prepared_agent(second, Dialling::In, &[])?;
        Ok(lab)
    }

    fn start_server(&mut self) -> Result<()> {
        let keep = ("LASTWORD_RETENTION__JOBS_AGE".to_owned(), "90d".to_owned());
        self.site.server.restart_with(&[self.server.environment(), keep])
    }

    /// The number of the oldest event.
    fn first_event(&self) -> Result<u64> {
        let page: EventList =
            self.site.client().call("GET", "/api/v1/events/list?cursor=10", None)?.json()?;
        Ok(page.items.last().context("no event")?.number)
    }

    /// Sets the clocks amid jobs of every kind, and looks how they end.
    fn round(&mut self, server: i64, agent: i64) -> Result<()> {
        let (gate, flag) = (
            self.site.path().join(format!("go{}", self.jumps)),
            self.site.path().join(format!("flag{}", self.jumps)),
        );
        for host in ["host1", "host2"] {
            self.jobs.submit(self.site, &mut self.random, JOBS, Some(host), SLEEP_MS_MAX)?;
        }
        let client = self.site.client().clone();
        let on_host1 = |job: JobSubmit| JobSubmit { agent: Some("host1".to_owned()), ..job };
        let span = |ms| Some(Span { ms });
        let running =
            client.submit(&on_host1(tests::gated_job(self.site.ledger().path(), &gate, End::Code(7))?))?;
        let sleep = JobSubmit { command: vec!["/bin/sleep".into(), "1000".into()], ..JobSubmit::default() };
        let limited = client.submit(&on_host1(JobSubmit { timeout: span(TIMEOUT_MS), ..sleep }))?;
        let script = format!("#!/bin/sh\n[ -e {0} ] && exit 0\n: > {0}\nexit 75\n", flag.display());
        let retry = Retry {
            backoff: span(PAUSE_MS),
            ..Retry { attempts_max: 3, backoff: None, backoff_max: None, factor: None, on: vec![] }
        };
        let retried = JobSubmit { script: Some(script), retry: Some(retry), ..JobSubmit::default() };
        let retried = client.submit(&on_host1(retried))?;
        client.wait_running(running)?;
        client.wait_running(limited)?;
        let begun = Instant::now();
        wait_until("the first attempt to be over", || Ok(client.job(retried)?.status.0 == Status::Waiting))?;
        let delayed =
            JobSubmit { command: vec!["/bin/true".into()], delay: span(PAUSE_MS), ..JobSubmit::default() };
        let delayed = client.submit(&on_host1(delayed))?;
        self.others += 4;

        self.server.set(server)?;
        self.agent.set(agent)?;
        self.jumps += 1;

        let job = client.wait(limited)?;
        let took = begun.elapsed();
        ensure!(job.timed_out && job.status.0 == Status::Killed, "the time limit: {job:#?}");
        ensure!(
            took >= Duration::from_millis(TIMEOUT_MS / 2),
            "a limit of {TIMEOUT_MS} ms ended the job after {took:?}"
        );
        ensure!(client.job(running)?.status.0 == Status::Running, "what runs is not ended by a clock");
        std::fs::write(&gate, "")?;
        let job = client.wait(running)?;
        ensure!(End::Code(7).fits(&job), "what ran while the clock was set: {job:#?}");
        for id in [retried, delayed] {
            let job = client.wait(id)?;
            ensure!(job.status.0 == Status::Completed, "what waited while the clock was set: {job:#?}");
        }
        self.jobs.compare(self.site)?;
        Ok(())
    }
}

/// One that is known by name, the same by its rule, and one in which it is another day.
const ZONES: [&str; 3] = ["Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3", "XXX-14YYY,J1/0,J365/23"];

#[test]
fn local_time_is_never_shown_and_nothing_depends_on_it() {
    on_empty_site(|site| {
        let mut tally = Tally::new(
            Part::TimeAndIdentity,
            "summer time and zones change nothing that is shown or decided",
        );
        for (index, zone) in ZONES.into_iter().enumerate() {
            let name = format!("host{index}");
            site.server.stop()?;
            site.server.restart_with(&[("TZ".to_owned(), zone.to_owned())])?;
            site.add_agent_with(&name, Dialling::In, &[("TZ".to_owned(), zone.to_owned())])?;
            let job =
                JobSubmit { agent: Some(name), command: vec!["/bin/true".into()], ..JobSubmit::default() };
            let id = site.client().submit(&JobSubmit { delay: Some(Span { ms: 500 }), ..job })?;
            ensure!(site.client().wait(id)?.status.0 == Status::Completed, "a delayed job in {zone}");
            let submitted = site.client().job(id)?.submitted_at.to_seconds();
            let number = id.to_string();
            for words in [["job", "show", &number, "-o", "json"], ["job", "show", &number, "-o", "wide"]] {
                let said = |zone: &str| -> Result<String> {
                    let output = site.lastword(&words)?.env("TZ", zone).output()?;
                    ensure!(
                        output.status.success(),
                        "{words:?}: {}",
                        String::from_utf8_lossy(&output.stderr)
                    );
                    Ok(String::from_utf8(output.stdout)?)
                };
                let (utc, local) = (said("UTC")?, said(zone)?);
                let moment =
                    |text: &str| text.contains(&submitted) || text.contains(&submitted.replace(' ', "T"));
                ensure!(utc == local && moment(&utc), "{zone} shows other times: {utc} {local}");
            }
            tally.count("time zones", 1);
        }
        tally.kept();
        Ok(())
    });
}
