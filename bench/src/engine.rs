//! How fast the scheduler's engine places jobs when many wait: pure decisions in this process, no database and no agent.

use crate::figure::Figures;
use anyhow::{Context, Result, ensure};
use job::{End, Outcome, RunId, RunIds, Status, Witness};
use prost::Message;
use protocol::message::{Ended, Fact, FactBody};
use scheduler::{Action, Connected, Engine, FactIn, Input, JobSpec, NewAgent, Output, QueueRecord, Snapshot};
use std::time::Instant;

const QUEUES: usize = 1_000;
const AGENTS: usize = 50;
const SLOTS: u32 = 100;
const JOBS: usize = 100_000;
/// So many jobs come in one submission.
const BATCH: usize = 1_000;
/// Where each queue is served by few, by so many.
const FEW: usize = 3;
const NOW_MS: i64 = 1_800_000_000_000;

/// Jobs that are placed per second while 100,000 wait in 1,000 queues that 50 process servers work off: every queue served by all, and by
/// three. From the outcome of one run, through the freed slot, to the next order.
pub(crate) fn measure(figures: &mut Figures) -> Result<()> {
    for (name, served_by) in [("place_per_s", AGENTS), ("place_per_s_few", FEW)] {
        let mut floor = Floor::new(served_by)?;
        let began = Instant::now();
        let placed = floor.work_off()?;
        figures.add(name, placed as f64 / began.elapsed().as_secs_f64(), "1/s", &[]);
    }
    Ok(())
}

/// An engine with its agents, who finish whatever they are given.
struct Floor {
    engine: Engine,
    running: Vec<(String, RunId)>,
    ended: Vec<u8>,
}

impl Floor {
    /// All jobs wait.
    fn new(served_by: usize) -> Result<Floor> {
        let queue = |n| QueueRecord {
            name: format!("q{n}"),
            held: false,
            slots: None,
            priority: 0,
            created_at_ms: 0,
        };
        let snapshot = Snapshot { queues: (0..QUEUES).map(queue).collect(), ..Snapshot::default() };
        let engine = Engine::restore(snapshot, RunIds::new([7; 32])).context("an empty engine")?;
        let end = End::Exited { code: 0 };
        let outcome = Outcome::Ended { end, cause: None, witness: Witness::JobProcessor, usage: None };
        let ended = Fact::new(NOW_MS, FactBody::Ended(Ended::from(&outcome))).encode_to_vec();
        let mut floor = Floor { engine, running: Vec::new(), ended };
        for n in 0..AGENTS {
            let serves =
                |queue: &usize| (0..served_by).any(|i| (queue + i * (AGENTS / served_by)) % AGENTS == n);
            floor.act(Input::AddAgent(NewAgent {
                name: format!("a{n}"),
                slots: SLOTS,
                dial: None,
                secret: vec![1; 32],
                queues: (0..QUEUES).filter(serves).map(|queue| format!("q{queue}")).collect(),
            }))?;
        }
        let job = |n: usize| JobSpec {
            queue: format!("q{}", n % QUEUES),
            command: vec![b"/bin/true".to_vec()],
            ..JobSpec::default()
        };
        for batch in 0..JOBS / BATCH {
            floor.act(Input::Submit((0..BATCH).map(|n| job(batch * BATCH + n)).collect()))?;
        }
        Ok(floor)
    }

    /// Until nothing waits; how many were placed.
    fn work_off(&mut self) -> Result<usize> {
        for n in 0..AGENTS {
            let agent_id = [u8::try_from(n).unwrap_or(0); 16];
            let agent = format!("a{n}");
            self.act(Input::AgentConnected(Connected {
                agent,
                session: 1,
                agent_id,
                ..Connected::default()
            }))?;
        }
        let mut placed = 0;
        while let Some((agent, run)) = self.running.pop() {
            placed += 1;
            let facts = vec![FactIn::new(run, 1, self.ended.clone())];
            self.act(Input::Facts { agent, facts })?;
        }
        let done = self.engine.counts().of(Status::Completed);
        ensure!(placed == JOBS && done == JOBS as u64, "{placed} were placed and {done} completed of {JOBS}");
        Ok(placed)
    }

    fn act(&mut self, input: Input) -> Result<()> {
        self.engine.on(input, NOW_MS)?;
        let Output { changes, actions, passing } = self.engine.take();
        self.engine.on_committed(passing, changes);
        for action in actions {
            if let Action::Start { agent, run, .. } = action {
                self.running.push((agent, run));
            }
        }
        Ok(())
    }
}
