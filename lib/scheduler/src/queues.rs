//! Commands about queues, and which agents they may use.

use crate::engine::{Engine, check_name};
use crate::input::Change;
use crate::rejection::Rejection;
use crate::{Event, EventKind, Object, QueueRecord};

impl Engine {
    pub(crate) fn on_create_queue(&mut self, name: String, now_ms: i64) -> Result<(), Rejection> {
        check_name("a queue", &name)?;
        if self.queue_names.contains_key(&name) {
            return Err(Rejection::NameTaken("a queue", name));
        }
        let record = QueueRecord { name, held: false, slots: None, priority: 0, created_at_ms: now_ms };
        self.write(Change::QueueInserted(record.clone()));
        self.tell(Event::new(EventKind::QueueCreated, Object::Queue(record.name.clone()), "created"));
        self.add_queue(record);
        Ok(())
    }

    pub(crate) fn on_delete_queue(&mut self, name: &str) -> Result<(), Rejection> {
        let ix = self.find_queue(name)?;
        let queue = self.queue_mut(ix);
        let jobs = queue.waiting + queue.active;
        if jobs > 0 {
            return Err(Rejection::QueueInUse { queue: name.to_owned(), jobs });
        }
        for agent in queue.agents.clone() {
            self.unlink(ix, agent);
        }
        self.queues.remove(&ix);
        self.queue_names.remove(name);
        self.write(Change::QueueDeleted(name.to_owned()));
        self.tell(Event::new(EventKind::QueueRemoved, Object::Queue(name.to_owned()), "removed"));
        Ok(())
    }

    pub(crate) fn on_hold_queue(&mut self, name: &str, held: bool, now_ms: i64) -> Result<(), Rejection> {
        let ix = self.find_queue(name)?;
        let queue = self.queue_mut(ix);
        if queue.record.held == held {
            return Ok(());
        }
        queue.record.held = held;
        let record = queue.record.clone();
        self.write(Change::QueueUpdated(record));
        let (kind, text) = match held {
            true => (EventKind::QueueHeld, "nothing is taken from it any more"),
            false => (EventKind::QueueReleased, "jobs are taken from it again"),
        };
        self.tell(Event::new(kind, Object::Queue(name.to_owned()), text));
        self.refresh_queue(ix);
        self.place_queue(ix, now_ms);
        Ok(())
    }

    /// Changes what is given; of `slots` the inner `None` takes the limit away.
    pub(crate) fn on_set_queue(
        &mut self,
        name: &str,
        slots: Option<Option<u32>>,
        priority: Option<i32>,
        now_ms: i64,
    ) -> Result<(), Rejection> {
        let ix = self.find_queue(name)?;
        let record = &mut self.queue_mut(ix).record;
        let before = record.clone();
        record.slots = slots.unwrap_or(before.slots);
        record.priority = priority.unwrap_or(before.priority);
        let record = record.clone();
        if record != before {
            let slots = record
                .slots
                .map_or_else(|| "no limit of its own".to_owned(), |slots| format!("{slots} slots"));
            let text = format!("{slots}, priority {}", record.priority);
            self.tell(Event::new(EventKind::QueueChanged, Object::Queue(name.to_owned()), text));
            self.write(Change::QueueUpdated(record));
            self.refresh_queue(ix);
            self.place_queue(ix, now_ms);
        }
        Ok(())
    }

    pub(crate) fn on_attach(&mut self, queue: &str, agent: &str, now_ms: i64) -> Result<(), Rejection> {
        let (queue_ix, agent_ix) = (self.find_queue(queue)?, self.find_agent(agent)?);
        if self.queue_mut(queue_ix).agents.contains(&agent_ix) {
            return Ok(());
        }
        self.link(queue_ix, agent_ix);
        self.write(Change::Attached(queue.to_owned(), agent.to_owned()));
        let text = format!("agent {agent} serves it");
        self.tell(Event::new(EventKind::QueueChanged, Object::Queue(queue.to_owned()), text));
        self.place_queue(queue_ix, now_ms);
        Ok(())
    }

    pub(crate) fn on_detach(&mut self, queue: &str, agent: &str) -> Result<(), Rejection> {
        let (queue_ix, agent_ix) = (self.find_queue(queue)?, self.find_agent(agent)?);
        if self.queue_mut(queue_ix).agents.contains(&agent_ix) {
            self.unlink(queue_ix, agent_ix);
            self.write(Change::Detached(queue.to_owned(), agent.to_owned()));
            let text = format!("agent {agent} serves it no longer");
            self.tell(Event::new(EventKind::QueueChanged, Object::Queue(queue.to_owned()), text));
        }
        Ok(())
    }
}
