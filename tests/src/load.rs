//! Jobs that are submitted all the time, and everything that the server told of them: whatever happens to a disk, that must stay true.
//!
//! One thread submits and repeats what was not answered, under the same key; another one looks at the newest jobs again and again.
//! What is compared, and when:
//!
//! | when                    | with what                                                                                         |
//! |-------------------------|---------------------------------------------------------------------------------------------------|
//! | at every look           | a final status never changes, and a job that was seen running does not wait again                  |
//! | [`Load::compare`]       | every number that was told is there, under its name; no job is there twice or was never asked for  |
//! | [`Load::finish`]        | every job is over; executions, outcomes and kept files are what the jobs themselves wrote outside  |

use crate::{Client, Ledger, Random, Site, Way, judge, ledger_job, wait_until};
use crate::{End, Tally};
use anyhow::{Context, Result, bail, ensure};
use api::{FileState, Job, JobFiles, JobList, JobSubmit, JobSummary, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many jobs are not over at once, as far as was told.
const OPEN_MAX: usize = 40;
/// So long a job sleeps at most, milliseconds.
const SLEEP_MS_MAX: u64 = 300;
/// A file that is kept, or an output, has at most so many bytes.
const BYTES_MAX: u64 = 100_000;
/// Of so many jobs one keeps a file, and one writes output.
const KEEPING_PART: u64 = 4;
/// A server that is off does not answer: whoever asked it asks again.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at the newest jobs.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// The longest that the jobs take to end when nothing disturbs them any more.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// What happens when a record is not what it was, or there are two of one: in these tests nothing may.
const ALARMS: &str = "agent.trouble,agent.two-identities,server.fenced,damage,file.lost,file.missing,run.late-outcome,job.escalated";

/// What was said of a job: its status, exit code and signal.
pub type Said = (Status, Option<u8>, Option<u8>);

/// The load of a site.
pub struct Load {
    shared: Arc<Shared>,
    client: Client,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    told: Mutex<Told>,
    /// Held from the question to the comparison, so that no older answer is compared after a newer one.
    looking: Mutex<()>,
    over: AtomicBool,
    ledger: PathBuf,
    /// Here a job makes a file when the one that it wants to keep is durable.
    made: PathBuf,
}

#[derive(Default)]
struct Told {
    wanted: BTreeMap<String, Wanted>,
    seen: BTreeMap<u64, Said>,
    wrong: Vec<String>,
    /// Jobs that were seen running.
    ran: BTreeSet<u64>,
    refusals: u64,
}

/// A job that was asked for.
#[derive(Clone)]
struct Wanted {
    way: Way,
    /// The length of the file that it keeps.
    kept_bytes: Option<u64>,
    /// Its number, when that was told.
    id: Option<u64>,
    /// Its host may have lost power while it ran.
    struck: bool,
}

impl Load {
    /// Begins to submit.
    pub fn begin(site: &Site, mut random: Random) -> Result<Load> {
        let made = site.path().join("made");
        std::fs::create_dir(&made)?;
        let shared = Arc::new(Shared {
            told: Mutex::default(),
            looking: Mutex::default(),
            over: AtomicBool::new(false),
            ledger: site.ledger().path().to_owned(),
            made,
        });
        let client = site.client().with_patience(PATIENCE);
        let (one, two) = (Arc::clone(&shared), Arc::clone(&shared));
        let (asking, looking) = (client.clone(), client.clone());
        let submits = std::thread::spawn(move || {
            if let Err(e) = one.submit(&asking, &mut random) {
                one.told().wrong.push(format!("{e:#}"));
            }
        });
        let looks = std::thread::spawn(move || {
            while !two.over.load(Ordering::Relaxed) {
                let _ = two.look(&looking); // a server that is off says nothing
                std::thread::sleep(LOOK_PAUSE);
            }
        });
        Ok(Load { shared, client, threads: vec![submits, looks] })
    }

    /// The agent's host lost power: what is not known to be over may be Unknown.
    pub fn on_power_lost(&self) {
        let mut told = self.shared.told();
        let Told { wanted, seen, .. } = &mut *told;
        for wanted in wanted.values_mut() {
            let said = wanted.id.and_then(|id| seen.get(&id));
            wanted.struck |= !said.is_some_and(|(status, ..)| status.is_final());
        }
    }

    /// What was seen last of the jobs in such a status.
    pub fn seen(&self, is_it: impl Fn(Status) -> bool) -> BTreeMap<u64, Said> {
        let told = self.shared.told();
        told.seen.iter().filter(|(_, said)| is_it(said.0)).map(|(id, said)| (*id, *said)).collect()
    }

    /// How many numbers were told so far.
    pub fn accepted(&self) -> usize {
        self.shared.told().wanted.values().filter(|wanted| wanted.id.is_some()).count()
    }

    /// How often the server refused a job because its disk was full.
    pub fn refusals(&self) -> u64 {
        self.shared.told().refusals
    }

    /// Looks at the newest jobs now; a server that is busy with something else is asked again.
    pub fn look(&self) -> Result<()> {
        let mut said = String::new();
        let seen = wait_until("a look at the newest jobs", || match self.shared.look(&self.client) {
            Ok(()) => Ok(true),
            Err(e) => {
                said = format!("{e:#}");
                Ok(false)
            }
        });
        seen.with_context(|| said)
    }

    /// Compares everything that was told with what the server says now.
    pub fn compare(&self) -> Result<()> {
        let shared = &self.shared;
        let _looking = lock(&shared.looking);
        let before: BTreeMap<u64, String> = {
            let told = shared.told();
            told.wanted.iter().filter_map(|(name, wanted)| Some((wanted.id?, name.clone()))).collect()
        };
        let list = self.client.list()?;
        let now: BTreeMap<u64, &str> = list.iter().map(|job| (job.id, job.name.as_str())).collect();
        let mut told = shared.told();
        for (id, name) in &before {
            ensure!(
                now.get(id) == Some(&name.as_str()),
                "job {id}, {name}, was accepted and is {:?}",
                now.get(id)
            );
        }
        let mut names = BTreeSet::new();
        for job in &list {
            ensure!(names.insert(&job.name), "there are two jobs {}", job.name);
            ensure!(told.wanted.contains_key(&job.name), "nobody asked for job {}, {}", job.id, job.name);
        }
        list.iter().for_each(|job| told.see(job));
        told.be_right()
    }

    /// Submits no more, waits until everything is over, and compares it with what the jobs did.
    pub fn finish(mut self, site: &Site, tally: &mut Tally) -> Result<()> {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            ensure!(thread.join().is_ok(), "a thread of the load panicked");
        }
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let (over, all) = self.client.progress()?;
            if over == all {
                break;
            }
            if Instant::now() >= deadline {
                let open = self.client.list()?.into_iter().find(|job| !job.status.0.is_final());
                let why = open.as_ref().map(|job| self.client.why(job.id)).transpose()?;
                bail!("{over} of {all} are over; the first of the others: {open:#?} ({why:?})");
            }
            std::thread::sleep(PAUSE);
        }
        self.compare()?;
        self.compare_executions(site, tally)?;
        let alarms: api::EventList =
            self.client.call("GET", &format!("/api/v1/events/list?kind={ALARMS}"), None)?.json()?;
        ensure!(alarms.items.is_empty(), "something is wrong: {:#?}", alarms.items);
        let check = site.lastword(&["server", "check"])?.output()?;
        ensure!(check.status.success(), "server check: {}", String::from_utf8_lossy(&check.stdout));
        tally.count("acknowledged facts compared", self.shared.told().facts());
        Ok(())
    }

    fn compare_executions(&self, site: &Site, tally: &mut Tally) -> Result<()> {
        let executions = Ledger::new(site.path()).read()?;
        let wanted = self.shared.told().wanted.clone();
        for (name, wanted) in &wanted {
            let id = wanted.id.with_context(|| format!("{name} was never answered"))?;
            let job = self.client.job(id)?;
            let own = executions.get(&id).map_or(&[][..], Vec::as_slice);
            if let Err(what) = judge(&job, wanted.way, own, false) {
                bail!("{what}: {:?} {own:?} {job:#?}", wanted.way);
            }
            tally.count("jobs compared", 1);
            if job.status.0 == Status::Unknown {
                let reason = job.reason.clone().unwrap_or_default();
                ensure!(wanted.struck, "Unknown without a power loss of its host: {job:#?}");
                ensure!(reason.contains("host restarted"), "Unknown for another reason: {job:#?}");
                tally.count("outcomes unknown because the host restarted", 1);
            } else if let Some(bytes) = wanted.kept_bytes
                && self.shared.made.join(id.to_string()).exists()
            {
                self.compare_file(&job, bytes)?;
                tally.count("kept files compared", 1);
            }
        }
        let stranger = executions.keys().find(|id| !wanted.values().any(|wanted| wanted.id == Some(**id)));
        ensure!(stranger.is_none(), "a job in the ledger that nobody submitted: {stranger:?}");
        Ok(())
    }

    /// The file that the job made durable is in the file store, whole.
    fn compare_file(&self, job: &Job, bytes: u64) -> Result<()> {
        let path = format!("/api/v1/jobs/{}/files", job.id);
        let mut files = None;
        let stored = wait_until("a kept file to be stored", || {
            let list: JobFiles = self.client.call("GET", &path, None)?.json()?;
            let is_there = list.items.len() == 1 && list.items[0].state == FileState::Stored;
            files = Some(list);
            Ok(is_there)
        });
        stored.with_context(|| format!("{files:#?} {job:#?}"))?;
        let content = self.client.call("GET", &format!("{path}/kept"), None)?.body;
        let line = format!("{}\n", job.name).into_bytes();
        let expected = line.iter().cycle().take(usize::try_from(bytes)?);
        ensure!(content.iter().eq(expected), "the kept file of job {} is another one", job.id);
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    fn submit(&self, client: &Client, random: &mut Random) -> Result<()> {
        for number in 0.. {
            while self.told().is_full() && !self.over.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSE);
            }
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let name = format!("load-{number}");
            let (job, wanted) = self.choose(&name, random)?;
            self.told().wanted.insert(name.clone(), wanted);
            let id = self.ask(client, &job)?;
            let mut told = self.told();
            if let Some(wanted) = told.wanted.get_mut(&name) {
                wanted.id = Some(id);
            }
        }
        Ok(())
    }

    /// Asks until there is an answer: also after the last round, since a job that was asked for may be there.
    fn ask(&self, client: &Client, job: &JobSubmit) -> Result<u64> {
        let body = serde_json::to_value(job)?;
        loop {
            match client.try_call("POST", "/api/v1/jobs", Some(&body)) {
                Ok(answer) if matches!(answer.status, 200 | 201) => return Ok(answer.json::<Job>()?.id),
                Ok(answer) if answer.status == 507 => self.told().refusals += 1,
                // It starts, stops, or cannot read its database.
                Ok(answer) if answer.status >= 500 => {}
                Ok(answer) => bail!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Err(_) => {} // it is off, or was amid its answer
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn choose(&self, name: &str, random: &mut Random) -> Result<(JobSubmit, Wanted)> {
        let end = match random.below(4) {
            0 => End::Signal(9),
            1 => End::Code(0),
            _ => End::Code(random.below(256) as u8),
        };
        let way = Way { sleep_ms: random.below(SLEEP_MS_MAX), end };
        let mut job = ledger_job(&self.ledger, way)?;
        let bytes = 1 + random.below(BYTES_MAX);
        let kind = random.below(KEEPING_PART);
        let made = self.made.display();
        let first = match kind {
            0 => format!(
                "yes {name} | head -c {bytes} > new && sync new && mv new kept && sync . && : > {made}/$LASTWORD_JOB_ID"
            ),
            1 => format!("yes {name} | head -c {bytes}"),
            _ => String::new(),
        };
        if !first.is_empty() {
            let shell = ["/bin/sh", "-c", &format!("{first}; exec \"$@\""), "sh"].map(str::to_owned);
            job.command = shell.into_iter().chain(job.command).collect();
        }
        if kind == 0 {
            job.capture = vec!["kept".to_owned()];
        }
        (job.name, job.idempotency_key) = (Some(name.to_owned()), Some(name.to_owned()));
        Ok((job, Wanted { way, kept_bytes: (kind == 0).then_some(bytes), id: None, struck: false }))
    }

    fn look(&self, client: &Client) -> Result<()> {
        let _looking = lock(&self.looking);
        let list: JobList = client.try_call("GET", "/api/v1/jobs?limit=200", None)?.json()?;
        let mut told = self.told();
        list.items.iter().for_each(|job| told.see(job));
        Ok(())
    }
}

impl Told {
    fn is_full(&self) -> bool {
        let over = |id: u64| self.seen.get(&id).is_some_and(|said| said.0.is_final());
        self.wanted.values().filter(|wanted| !wanted.id.is_some_and(over)).count() >= OPEN_MAX
    }

    fn see(&mut self, job: &JobSummary) {
        let said = (job.status.0, job.exit_code, job.signal);
        let began = |status| status == Status::Running;
        if began(said.0) {
            self.ran.insert(job.id);
        }
        let Some(before) = self.seen.insert(job.id, said) else { return };
        if before.0.is_final() && before != said {
            self.wrong.push(format!("job {} was {before:?} and is {said:?}", job.id));
        }
        if began(before.0) && !began(said.0) && !said.0.is_final() {
            self.wrong.push(format!("job {} ran and is {said:?}", job.id));
        }
    }

    /// How many numbers, starts and final statuses the server told; all of them were compared, again after every recovery.
    fn facts(&self) -> u64 {
        let numbers = self.wanted.values().filter(|wanted| wanted.id.is_some()).count();
        let finals = self.seen.values().filter(|said| said.0.is_final()).count();
        (numbers + self.ran.len() + finals) as u64
    }

    fn be_right(&self) -> Result<()> {
        match self.wrong.first() {
            Some(first) => bail!("{} things are wrong. The first: {first}", self.wrong.len()),
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
