//! What the core does around a command that somebody gave: is it the same one again, is the object still what it was; then the command
//! itself; then the audit, and the answer in case the same command comes again. All of it is one commit.

use super::audit::{self, About};
use super::command::Task;
use super::committer::{Answer, Core};
use super::handle::CoreError;
use super::order::Order;
use super::tag;
use crate::db::{AnswerKey, AnswerRecord, DbError, Entry};
use scheduler::{Object, Reply};

impl Core {
    /// Carries a command out, for somebody or for the server itself.
    pub(super) fn on_order(&mut self, task: Task, order: Option<&Order>) -> Answer {
        let Some(order) = order else { return self.carry_out_task(task) };
        let once = self.key_of(order, &task);
        if let Some((key, digest)) = &once
            && let Some(earlier) = self.answer_before(key)?
        {
            if earlier.digest != *digest {
                return Err(CoreError::KeyReused(key.key.clone()));
            }
            // Who did the first of its commands is the one who did it, even if another has overtaken it since.
            if key.part == 0 {
                order.on_repeated();
            }
            return Ok(earlier.reply);
        }
        let about = self.about(&task);
        let result = match &about {
            Some(about) => self.check_version(order, about).and_then(|()| self.carry_out_task(task)),
            None => self.carry_out_task(task),
        };
        if let Some(about) = about {
            self.audit(order, about, &result);
        }
        if let (Some((key, digest)), Ok(reply)) = (once, &result) {
            let at_ms = os::clock::wall_ms();
            let answer = AnswerRecord { key: key.clone(), digest, reply: reply.clone(), at_ms };
            self.answered.insert(key, answer.clone());
            self.entries.push(Entry::Answered(answer));
        }
        result
    }

    fn carry_out_task(&mut self, task: Task) -> Answer {
        match task {
            Task::Engine(input) => self.decide(input),
            Task::Access(input) => {
                let entries = self.access.on(input, os::clock::wall_ms())?;
                self.entries.extend(entries);
                Ok(Reply::Done)
            }
            Task::Files(changes, events) => {
                self.entries.extend(changes.into_iter().map(Entry::File));
                for event in events {
                    self.engine.happened(event, os::clock::wall_ms());
                }
                Ok(Reply::Done)
            }
            Task::Note { .. } => Ok(Reply::Done),
        }
    }

    /// The key of this command, if it must not be carried out twice.
    fn key_of(&self, order: &Order, task: &Task) -> Option<(AnswerKey, [u8; 32])> {
        let once = order.once.as_ref().filter(|_| !matches!(task, Task::Note { .. }))?;
        let key =
            AnswerKey { user: order.caller.name.clone(), key: once.key.clone(), part: order.next_part() };
        Some((key, once.digest))
    }

    fn answer_before(&self, key: &AnswerKey) -> Result<Option<AnswerRecord>, DbError> {
        match self.answered.get(key) {
            Some(answer) => Ok(Some(answer.clone())),
            None => self.database.answer(key),
        }
    }

    fn about(&self, task: &Task) -> Option<About> {
        match task {
            Task::Engine(input) => audit::of_input(input, &self.engine),
            Task::Access(input) => audit::of_access(input),
            Task::Files(..) => None, // nobody asked for it
            Task::Note { action, object, detail, refusal } => {
                let (action, refusal) = (action.clone().into(), refusal.clone());
                Some(About { action, object: object.clone(), detail: detail.clone(), refusal })
            }
        }
    }

    /// `If-Match`: the first command of an order is for the version that its giver saw; what follows is for what the first made of it.
    fn check_version(&self, order: &Order, about: &About) -> Result<(), CoreError> {
        let Some(wanted) = order.if_match.as_ref().filter(|_| order.is_first_check()) else { return Ok(()) };
        let version = match about.object.parse::<Object>() {
            Ok(Object::Queue(name)) => self.engine.queue(&name).map(|view| tag::of_queue(&view)),
            Ok(Object::Agent(name)) => self.engine.agent(&name).map(|view| tag::of_agent(&view)),
            Ok(Object::Job(id)) => match self.engine.job(id) {
                Some(record) => Some(tag::of_job(record)),
                None => self.database.job(id)?.map(|record| tag::of_job(&record)),
            },
            Ok(Object::Server) | Err(_) => None,
        };
        let fits = |version: &String| wanted.iter().any(|wanted| wanted == "*" || wanted == version);
        match version {
            Some(version) if fits(&version) => Ok(()),
            Some(_) | None => Err(CoreError::Changed(about.object.clone())),
        }
    }

    fn audit(&mut self, order: &Order, about: About, result: &Answer) {
        let object = audit::object_of(&about, result.as_ref().ok());
        let refusal = result.as_ref().err().map(ToString::to_string).or_else(|| about.refusal.clone());
        order.on_record();
        self.last_audit += 1;
        let record = audit::record(order, about, object, refusal, os::clock::wall_ms());
        self.entries.push(Entry::Audit(crate::db::AuditRecord { number: self.last_audit, ..record }));
    }
}
