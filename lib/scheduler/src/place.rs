//! Which job goes where.
//!
//! Within a queue the order is strict among the jobs that can go somewhere: the higher priority first, then the lower number. A
//! job that waits for one certain agent never blocks those behind it. Among the agents that can take a job, the one with the
//! greatest share of free slots gets it; then the name decides.
//!
//! After each input this holds: **no job at the head of a queue could be placed**. So a new job behind a head needs no look
//! at all, a queue is looked at only when its head changes, and a freed slot looks at heads only. No work here depends
//! on how many jobs wait.

use crate::RunRecord;
use crate::engine::{Agent, AgentIx, Engine, QueueIx};
use crate::input::Action;
use job::{JobId, Status};
use std::cmp::{Ordering, Reverse};

/// The place of a job in its queue.
pub(crate) type Key = (Reverse<i32>, JobId);

impl Agent {
    /// Whether a new run may be placed on it.
    pub(crate) fn is_free(&self, now_ms: i64) -> bool {
        self.session.is_some()
            && self.record.drain.is_none()
            && self.refusing.is_empty()
            && self.paused_until_ms.is_none_or(|until| until <= now_ms)
            && self.used() < self.record.slots
    }

    /// Compares the shares of free slots, then the names: the greatest gets the job.
    fn compare_room(&self, other: &Agent) -> Ordering {
        let free = |agent: &Agent| u64::from(agent.record.slots.saturating_sub(agent.used()));
        let ours = free(self) * u64::from(other.record.slots);
        let theirs = free(other) * u64::from(self.record.slots);
        ours.cmp(&theirs).then_with(|| other.record.name.cmp(&self.record.name))
    }
}

impl Engine {
    /// Puts a queued job into its queue's order. Returns whether it is the first of its kind there.
    pub(crate) fn enqueue(&mut self, id: JobId) -> bool {
        let key = self.key_of(id);
        let job = &self.jobs[&id];
        let (queue_ix, pinned) = (job.queue, job.record.spec.agent.clone());
        match pinned {
            None => {
                let queue = self.queue_mut(queue_ix);
                queue.unpinned.insert(key);
                let first = queue.unpinned.first() == Some(&key);
                self.refresh_head(queue_ix);
                first
            }
            Some(agent) => {
                let waiting = self.queue_mut(queue_ix).pinned.entry(agent.clone()).or_default();
                waiting.insert(key);
                let first = waiting.first() == Some(&key);
                self.refresh_pinned(queue_ix, &agent);
                first
            }
        }
    }

    /// Takes a queued job out of its queue's order.
    pub(crate) fn dequeue(&mut self, id: JobId) {
        let key = self.key_of(id);
        let job = &self.jobs[&id];
        let (queue_ix, pinned) = (job.queue, job.record.spec.agent.clone());
        match pinned {
            None => {
                self.queue_mut(queue_ix).unpinned.remove(&key);
                self.refresh_head(queue_ix);
            }
            Some(agent) => {
                let queue = self.queue_mut(queue_ix);
                if let Some(waiting) = queue.pinned.get_mut(&agent) {
                    waiting.remove(&key);
                    if waiting.is_empty() {
                        queue.pinned.remove(&agent);
                    }
                }
                self.refresh_pinned(queue_ix, &agent);
            }
        }
    }

    /// Attaches in memory.
    pub(crate) fn link(&mut self, queue_ix: QueueIx, agent_ix: AgentIx) {
        self.queue_mut(queue_ix).agents.insert(agent_ix);
        let agent = self.agent_mut(agent_ix);
        agent.queues.insert(queue_ix);
        let name = agent.record.name.clone();
        self.refresh_pinned(queue_ix, &name);
    }

    /// Detaches in memory.
    pub(crate) fn unlink(&mut self, queue_ix: QueueIx, agent_ix: AgentIx) {
        self.queue_mut(queue_ix).agents.remove(&agent_ix);
        let agent = self.agent_mut(agent_ix);
        agent.queues.remove(&queue_ix);
        let name = agent.record.name.clone();
        self.refresh_pinned(queue_ix, &name);
    }

    /// Brings everything up to date that depends on whether the queue is held.
    pub(crate) fn refresh_queue(&mut self, queue_ix: QueueIx) {
        self.refresh_head(queue_ix);
        let names: Vec<_> = self.queue_mut(queue_ix).pinned.keys().cloned().collect();
        for name in names {
            self.refresh_pinned(queue_ix, &name);
        }
    }

    fn refresh_head(&mut self, queue_ix: QueueIx) {
        let queue = self.queue_mut(queue_ix);
        let head = if queue.record.held { None } else { queue.unpinned.first().copied() };
        let before = std::mem::replace(&mut queue.head, head);
        if before == head {
            return;
        }
        if let Some(key) = before {
            self.heads.remove(&(key, queue_ix));
        }
        if let Some(key) = head {
            self.heads.insert((key, queue_ix));
        }
    }

    fn refresh_pinned(&mut self, queue_ix: QueueIx, name: &str) {
        let Some(&agent_ix) = self.agent_names.get(name) else { return };
        let queue = &self.queues[&queue_ix];
        let usable = !queue.record.held && queue.agents.contains(&agent_ix);
        let head = if usable { queue.pinned.get(name).and_then(|keys| keys.first()).copied() } else { None };
        let agent = self.agent_mut(agent_ix);
        let before = match head {
            Some(key) => agent.pinned_head_of.insert(queue_ix, key),
            None => agent.pinned_head_of.remove(&queue_ix),
        };
        if before == head {
            return;
        }
        if let Some(key) = before {
            agent.pinned_heads.remove(&(key, queue_ix));
        }
        if let Some(key) = head {
            agent.pinned_heads.insert((key, queue_ix));
        }
    }

    /// Places what can be placed of one queue: its head changed, or what may take it.
    pub(crate) fn place_queue(&mut self, queue_ix: QueueIx, now_ms: i64) {
        while let Some((job, agent_ix)) = self.next_of_queue(queue_ix, now_ms) {
            self.place(job, agent_ix, now_ms);
        }
    }

    /// Places what can be placed on one agent: it has room.
    pub(crate) fn place_agent(&mut self, agent_ix: AgentIx, now_ms: i64) {
        while self.agents.get(&agent_ix).is_some_and(|agent| agent.is_free(now_ms)) {
            let Some(job) = self.next_of_agent(agent_ix) else { return };
            self.place(job, agent_ix, now_ms);
        }
    }

    fn next_of_queue(&self, queue_ix: QueueIx, now_ms: i64) -> Option<(JobId, AgentIx)> {
        let queue = &self.queues[&queue_ix];
        if queue.record.held {
            return None;
        }
        let mut roomiest: Option<(AgentIx, &Agent)> = None;
        let mut pinned: Option<(Key, AgentIx)> = None;
        for &agent_ix in &queue.agents {
            let agent = &self.agents[&agent_ix];
            if !agent.is_free(now_ms) {
                continue;
            }
            if roomiest.is_none_or(|(_, best)| agent.compare_room(best) == Ordering::Greater) {
                roomiest = Some((agent_ix, agent));
            }
            if let Some(&key) = agent.pinned_head_of.get(&queue_ix)
                && pinned.is_none_or(|(best, _)| key < best)
            {
                pinned = Some((key, agent_ix));
            }
        }
        let unpinned = queue.head.zip(roomiest.map(|(agent_ix, _)| agent_ix));
        [unpinned, pinned].into_iter().flatten().min().map(|((_, job), agent_ix)| (job, agent_ix))
    }

    fn next_of_agent(&self, agent_ix: AgentIx) -> Option<JobId> {
        let agent = &self.agents[&agent_ix];
        let pinned = agent.pinned_heads.first().map(|(key, _)| *key);
        // Two ways to the first head among the agent's queues; the shorter list is walked.
        let unpinned = if agent.queues.len() <= self.heads.len() / HEADS_PER_QUEUE_WALKED {
            agent.queues.iter().filter_map(|ix| self.queues[ix].head).min()
        } else {
            self.heads.iter().find(|(_, queue)| agent.queues.contains(queue)).map(|(key, _)| *key)
        };
        [pinned, unpinned].into_iter().flatten().min().map(|(_, job)| job)
    }

    fn place(&mut self, id: JobId, agent_ix: AgentIx, now_ms: i64) {
        self.dequeue(id);
        let run = self.ids.next(u64::try_from(now_ms).unwrap_or(0));
        let agent = self.agent_mut(agent_ix);
        agent.runs.insert(run);
        let name = agent.record.name.clone();
        let queue_ix = self.jobs[&id].queue;
        let queue = self.queue_mut(queue_ix);
        queue.waiting -= 1;
        queue.active += 1;
        self.set_job_status(id, Status::Dispatched, false);
        let job = self.job_mut(id);
        let previous = if job.attempts == 0 { "" } else { Status::Canceled.name() };
        job.attempts += 1;
        job.run = Some(run);
        job.agent = Some(name.clone());
        job.reason = None;
        let attempt = job.attempts;
        let spec = Box::new(job.spec.run_spec(id, attempt, &name, previous, job.submitted_at_ms));
        self.insert_run(RunRecord {
            id: run,
            job: id,
            attempt,
            agent: name.clone(),
            status: Status::Dispatched,
            placed_at_ms: now_ms,
            accepted_at_ms: None,
            started_at_ms: None,
            ended_at_ms: None,
            exit_code: None,
            signal: None,
            core: false,
            witness: None,
            reason: None,
            cpu_ms: None,
            max_rss_kib: None,
            acked_seq: 0,
            late: None,
        });
        self.act(Action::Start { agent: name, run, spec });
    }
}

/// An agent's queues are walked if they are that many times fewer than the heads of all queues.
const HEADS_PER_QUEUE_WALKED: usize = 4;
