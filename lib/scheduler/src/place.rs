//! Which job goes where.
//!
//! Within a queue the order is strict among the jobs that can go somewhere: the higher priority first, then the lower number. A
//! job that waits for one certain agent, or for agents that speak a later protocol, never blocks those behind it. Among queues that share an agent the queue with the higher
//! priority goes first; between equal ones their jobs are compared as if they stood in one queue. Among the agents that can take a
//! job, the one with the greatest share of free slots gets it; then the name decides.
//!
//! A queue gives jobs away unless it is held or all slots of its own are taken; one that does not has no heads.
//!
//! After each input this holds: **no job at the head of a queue could be placed**. So a new job behind a head needs no look
//! at all, a queue is looked at only when its head changes, and a freed slot looks at heads only. No work here depends
//! on how many jobs wait.

use crate::RunRecord;
use crate::engine::{Agent, AgentIx, Engine, Queue, QueueIx};
use crate::input::Action;
use crate::stand::Stand;
use job::JobId;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

/// The place of a job in its queue.
pub(crate) type Key = (Reverse<i32>, JobId);
/// The place of a job among those of other queues: first the queue's priority, then its own place.
pub(crate) type Rank = (Reverse<i32>, Key);

impl Queue {
    /// Whether it gives jobs away.
    pub(crate) fn gives(&self) -> bool {
        !self.record.held && !self.is_full()
    }

    /// Whether all slots of its own are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.record.slots.is_some_and(|slots| self.active >= u64::from(slots))
    }
}

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

/// A kind of need, the first that waits with it, and the agent with the most room of those that honour it.
type Roomiest<'a> = (u32, Rank, Option<(AgentIx, &'a Agent)>);

impl Engine {
    /// Puts a queued job into its queue's order. Returns whether it is the first of its kind there.
    pub(crate) fn enqueue(&mut self, id: JobId) -> bool {
        if self.keep_back(id) {
            return false;
        }
        let key = self.key_of(id);
        let job = &self.jobs[&id];
        let (queue_ix, needs, pinned) = (job.queue, job.needs, job.record.spec.agent.clone());
        match pinned {
            None => {
                let first = self.queue_mut(queue_ix).unpinned.insert(needs, key);
                self.refresh_head(queue_ix);
                first
            }
            Some(agent) => {
                let waiting = self.queue_mut(queue_ix).pinned.entry(agent.clone()).or_default();
                let first = waiting.insert(needs, key);
                self.refresh_pinned(queue_ix, &agent);
                first
            }
        }
    }

    /// Takes a queued job out of its queue's order.
    pub(crate) fn dequeue(&mut self, id: JobId) {
        if self.let_go(id) {
            return;
        }
        let key = self.key_of(id);
        let job = &self.jobs[&id];
        let (queue_ix, needs, pinned) = (job.queue, job.needs, job.record.spec.agent.clone());
        match pinned {
            None => {
                self.queue_mut(queue_ix).unpinned.remove(needs, key);
                self.refresh_head(queue_ix);
            }
            Some(agent) => {
                let queue = self.queue_mut(queue_ix);
                if let Some(waiting) = queue.pinned.get_mut(&agent) {
                    waiting.remove(needs, key);
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

    /// Brings everything up to date that depends on the queue's priority and on whether it gives jobs away.
    pub(crate) fn refresh_queue(&mut self, queue_ix: QueueIx) {
        self.refresh_head(queue_ix);
        let names: Vec<_> = self.queue_mut(queue_ix).pinned.keys().cloned().collect();
        for name in names {
            self.refresh_pinned(queue_ix, &name);
        }
    }

    fn refresh_head(&mut self, queue_ix: QueueIx) {
        let queue = self.queue_mut(queue_ix);
        let (gives, priority) = (queue.gives(), Reverse(queue.record.priority));
        let firsts =
            || queue.unpinned.firsts().filter(|_| gives).map(|(needs, key)| (needs, (priority, key)));
        if firsts().eq(queue.heads.iter().map(|(needs, rank)| (*needs, *rank))) {
            return;
        }
        let heads: BTreeMap<u32, Rank> = firsts().collect();
        let before = std::mem::replace(&mut queue.heads, heads.clone());
        for (needs, rank) in before {
            self.heads.remove(&(rank, queue_ix, needs));
        }
        for (needs, rank) in heads {
            self.heads.insert((rank, queue_ix, needs));
        }
    }

    /// What an agent speaks may have changed, and with it the first job of its own.
    pub(crate) fn refresh_agent(&mut self, agent_ix: AgentIx) {
        let agent = self.agent_mut(agent_ix);
        let (name, queues) = (agent.record.name.clone(), agent.queues.clone());
        for queue in queues {
            self.refresh_pinned(queue, &name);
        }
    }

    fn refresh_pinned(&mut self, queue_ix: QueueIx, name: &str) {
        let Some(&agent_ix) = self.agent_names.get(name) else { return };
        let queue = &self.queues[&queue_ix];
        let usable = queue.gives() && queue.agents.contains(&agent_ix);
        let protocol = self.agents[&agent_ix].protocol;
        let first = queue.pinned.get(name).and_then(|line| line.first_for(protocol)).filter(|_| usable);
        let head = first.map(|key| (Reverse(queue.record.priority), key));
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
        if !queue.gives() {
            return None;
        }
        // For each kind of need the roomiest agent that honours it.
        let mut roomiest: Vec<Roomiest<'_>> =
            queue.heads.iter().map(|(needs, rank)| (*needs, *rank, None)).collect();
        let mut pinned: Option<(Rank, AgentIx)> = None;
        for &agent_ix in &queue.agents {
            let agent = &self.agents[&agent_ix];
            if !agent.is_free(now_ms) {
                continue;
            }
            for (_, _, best) in roomiest.iter_mut().filter(|(needs, ..)| *needs <= agent.protocol) {
                if best.is_none_or(|(_, best)| agent.compare_room(best) == Ordering::Greater) {
                    *best = Some((agent_ix, agent));
                }
            }
            if let Some(&rank) = agent.pinned_head_of.get(&queue_ix)
                && pinned.is_none_or(|(best, _)| rank < best)
            {
                pinned = Some((rank, agent_ix));
            }
        }
        let unpinned = roomiest.into_iter().filter_map(|(_, rank, best)| Some((rank, best?.0)));
        unpinned.chain(pinned).min().map(|((_, (_, job)), agent_ix)| (job, agent_ix))
    }

    fn next_of_agent(&self, agent_ix: AgentIx) -> Option<JobId> {
        let agent = &self.agents[&agent_ix];
        let pinned = agent.pinned_heads.first().map(|(rank, _)| *rank);
        // Two ways to the first head among the agent's queues. Along all heads it is soon met if the agent serves many of them; where
        // heads of other queues crowd the front, that walk is given up and the agent's own queues are walked.
        let steps = agent.queues.len();
        let mut front = self.heads.iter().take(steps);
        let fits = |queue: &QueueIx, needs: u32| needs <= agent.protocol && agent.queues.contains(queue);
        let met = front.find(|(_, queue, needs)| fits(queue, *needs)).map(|(rank, ..)| *rank);
        let of_queue = |queue: &QueueIx| {
            let honoured = self.queues[queue].heads.range(..=agent.protocol);
            honoured.map(|(_, rank)| *rank).min()
        };
        let own = || agent.queues.iter().filter_map(of_queue).min();
        let unpinned = met.or_else(|| if self.heads.len() > steps { own() } else { None });
        [pinned, unpinned].into_iter().flatten().min().map(|(_, (_, job))| job)
    }

    fn place(&mut self, id: JobId, agent_ix: AgentIx, now_ms: i64) {
        let run = self.ids.next(u64::try_from(now_ms).unwrap_or(0));
        let agent = self.agent_mut(agent_ix);
        agent.runs.insert(run);
        let name = agent.record.name.clone();
        self.stand(id, Stand::Placed);
        let job = self.job_mut(id);
        job.attempts += 1;
        job.run = Some(run);
        job.agent = Some(name.clone());
        (job.reason, job.exit_code, job.signal, job.started_at_ms) = (None, None, None, None);
        let attempt = job.attempts;
        let spec = Box::new(job.run_spec(attempt));
        self.insert_run(RunRecord::placed(run, id, attempt, name.clone(), now_ms));
        self.act(Action::Start { agent: name, run, spec });
    }
}
