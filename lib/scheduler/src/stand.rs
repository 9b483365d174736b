//! Where a job stands: in its queue, waiting for something else, held, with an agent, over. Every change of a job's status comes
//! through [`Engine::stand`], which keeps the queues' order, their counts and the list of what is due in step with it.
//!
//! The table of which status may follow which is `docs/status-life.md`.

use crate::Wait;
use crate::engine::{Engine, is_placed};
use job::{JobId, Status};

/// Where a job can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// In its queue's order.
    Queued,
    /// For a moment or a person.
    Waiting(Wait),
    /// Held back; then it waits on for what it waited for.
    Held(Option<Wait>),
    /// With an agent.
    Placed,
    /// Over.
    Over(Status),
}

impl Stand {
    fn status(self) -> Status {
        match self {
            Stand::Queued => Status::Queued,
            Stand::Waiting(Wait::Start { .. }) => Status::Scheduled,
            Stand::Waiting(Wait::Retry { .. } | Wait::Decision) => Status::Waiting,
            Stand::Held(_) => Status::Held,
            Stand::Placed => Status::Dispatched,
            Stand::Over(status) => status,
        }
    }
}

impl Engine {
    /// Moves a job to where it is to stand. Returns whether its queue may have something new to place: the caller looks at it
    /// ([`Engine::place_queue`]) when everything else is as it should be.
    pub(crate) fn stand(&mut self, id: JobId, to: Stand) -> bool {
        if !self.may_go(id, to.status()) {
            return false;
        }
        let freed = self.leave(id);
        self.set_job_status(id, to.status());
        let queue = self.jobs[&id].queue;
        let (wait, until_ms) = match to {
            Stand::Waiting(wait) => (Some(wait), wait.until_ms()),
            Stand::Held(wait) => (wait, None),
            Stand::Queued | Stand::Placed | Stand::Over(_) => (None, None),
        };
        self.job_mut(id).wait = wait;
        if let Some(until_ms) = until_ms {
            self.due.insert((until_ms, id));
        }
        let entry = self.queue_mut(queue);
        match to {
            Stand::Queued => {
                entry.waiting += 1;
                self.enqueue(id) || freed
            }
            Stand::Waiting(_) | Stand::Held(_) => {
                entry.waiting += 1;
                freed
            }
            Stand::Placed => {
                entry.active += 1;
                if entry.is_full() {
                    self.refresh_queue(queue);
                }
                freed
            }
            Stand::Over(_) => freed,
        }
    }

    /// Takes a job out of where it stands. Returns whether a slot of its queue became free that others waited for.
    fn leave(&mut self, id: JobId) -> bool {
        let job = &self.jobs[&id];
        let (status, queue, until_ms) =
            (job.record.status, job.queue, job.record.wait.and_then(Wait::until_ms));
        if status == Status::Queued {
            self.dequeue(id);
        }
        if let Some(until_ms) = until_ms {
            self.due.remove(&(until_ms, id));
        }
        if status.is_final() {
            return false;
        }
        let entry = self.queue_mut(queue);
        if !is_placed(status) {
            entry.waiting -= 1;
            return false;
        }
        let was_full = entry.is_full();
        entry.active -= 1;
        let freed = was_full && !entry.is_full();
        if freed {
            self.refresh_queue(queue);
        }
        freed
    }
}
