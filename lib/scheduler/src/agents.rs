//! Agents come, go, are added and removed.

use crate::engine::{AgentIx, Engine, check_name};
use crate::input::{Action, Change, Connected, NewAgent};
use crate::rejection::Rejection;
use crate::{AgentRecord, Drain, Event, EventKind, FailedProof, Object};
use job::{Outcome, RunId};
use protocol::handshake::PROTOCOL_VERSION_MIN;
use serde_json::json;
use std::collections::BTreeSet;

/// The most slots of an agent: all its runs must fit into one frame when it comes back.
const SLOTS_MAX: u32 = 50_000;
/// The shortest secret.
const SECRET_BYTES_MIN: usize = 32;
/// The longest.
const SECRET_BYTES_MAX: usize = 4096;
/// The longest reason for a drain.
const REASON_CHARS_MAX: usize = 500;
/// So many known runs are named to an agent; of the others it sends everything again, which is dropped here.
const KNOWN_MAX: usize = 50_000;

impl Engine {
    pub(crate) fn on_add_agent(&mut self, new: NewAgent, now_ms: i64) -> Result<(), Rejection> {
        check_name("an agent", &new.name)?;
        check_slots(new.slots)?;
        check_secret(&new.secret)?;
        if self.agent_names.contains_key(&new.name) {
            return Err(Rejection::NameTaken("an agent", new.name));
        }
        let queues: BTreeSet<_> =
            new.queues.iter().map(|queue| self.find_queue(queue)).collect::<Result<_, _>>()?;
        let record = AgentRecord {
            name: new.name.clone(),
            slots: new.slots,
            dial: new.dial,
            added_at_ms: now_ms,
            agent_id: None,
            boot_id: None,
            incarnation: None,
            software: String::new(),
            platform: String::new(),
            connected_at_ms: None,
            disconnected_at_ms: None,
            stopped: false,
            drain: None,
            trouble: None,
        };
        self.write(Change::AgentInserted(record.clone(), new.secret));
        let agent_ix = self.add_agent(record);
        for queue_ix in queues {
            self.link(queue_ix, agent_ix);
            let queue = self.queue_mut(queue_ix).record.name.clone();
            self.write(Change::Attached(queue, new.name.clone()));
        }
        let text = format!("made known, {} slots", new.slots);
        self.tell(
            Event::new(EventKind::AgentAdded, Object::Agent(new.name), text)
                .with(json!({"slots": new.slots})),
        );
        Ok(())
    }

    pub(crate) fn on_remove_agent(
        &mut self,
        name: &str,
        force: bool,
        by: &str,
        now_ms: i64,
    ) -> Result<(), Rejection> {
        let ix = self.find_agent(name)?;
        let agent = self.agent_mut(ix);
        let runs: Vec<RunId> = agent.runs.iter().copied().collect();
        if !runs.is_empty() && !force {
            return Err(Rejection::AgentInUse { agent: name.to_owned(), runs: runs.len() as u64 });
        }
        agent.session = None; // nothing is placed on it any more
        for run in runs {
            let reason = format!("agent \"{name}\" was removed by {by} before it told how the run ended");
            self.finish(run, &Outcome::Unknown { reason }, now_ms, now_ms);
        }
        for queue_ix in self.agent_mut(ix).queues.clone() {
            self.unlink(queue_ix, ix);
        }
        self.rest_no_more(ix);
        self.agents.remove(&ix);
        self.agent_names.remove(name);
        self.write(Change::AgentDeleted(name.to_owned()));
        self.on_told(name, now_ms);
        let text = format!("removed by {by}");
        self.tell(
            Event::new(EventKind::AgentRemoved, Object::Agent(name.to_owned()), text)
                .with(json!({"force": force})),
        );
        self.act(Action::AgentGone { agent: name.to_owned() });
        Ok(())
    }

    pub(crate) fn on_set_slots(&mut self, name: &str, slots: u32, now_ms: i64) -> Result<(), Rejection> {
        check_slots(slots)?;
        let ix = self.find_agent(name)?;
        self.agent_mut(ix).record.slots = slots;
        self.write_agent(ix);
        let text = format!("{slots} slots");
        self.tell(
            Event::new(EventKind::AgentChanged, Object::Agent(name.to_owned()), text)
                .with(json!({"slots": slots})),
        );
        self.place_agent(ix, now_ms);
        Ok(())
    }

    pub(crate) fn on_set_secret(&mut self, name: String, secret: Vec<u8>) -> Result<(), Rejection> {
        check_secret(&secret)?;
        self.find_agent(&name)?;
        self.tell(Event::new(EventKind::AgentChanged, Object::Agent(name.clone()), "a new secret"));
        self.write(Change::SecretAdded(name, secret));
        Ok(())
    }

    pub(crate) fn on_retire_secrets(&mut self, name: String) -> Result<(), Rejection> {
        self.find_agent(&name)?;
        self.write(Change::SecretsRetired(name));
        Ok(())
    }

    pub(crate) fn on_drain(
        &mut self,
        name: &str,
        by: String,
        reason: String,
        now_ms: i64,
    ) -> Result<(), Rejection> {
        if reason.chars().count() > REASON_CHARS_MAX {
            let range = format!("at most {REASON_CHARS_MAX} characters long");
            return Err(Rejection::OutOfRange { what: "the reason", range });
        }
        let ix = self.find_agent(name)?;
        let record = &mut self.agent_mut(ix).record;
        let at_ms = record.drain.as_ref().map_or(now_ms, |drain| drain.at_ms);
        let text = format!(
            "{by} wants no new runs on it{}",
            if reason.is_empty() { String::new() } else { format!(": {reason}") }
        );
        record.drain = Some(Drain { by, reason, at_ms });
        self.write_agent(ix);
        self.tell(Event::new(EventKind::AgentDraining, Object::Agent(name.to_owned()), text));
        Ok(())
    }

    pub(crate) fn on_resume(&mut self, name: &str, now_ms: i64) -> Result<(), Rejection> {
        let ix = self.find_agent(name)?;
        let record = &mut self.agent_mut(ix).record;
        (record.drain, record.trouble) = (None, None);
        self.write_agent(ix);
        let text = "it takes runs again".to_owned();
        self.tell(Event::new(EventKind::AgentResumed, Object::Agent(name.to_owned()), text));
        self.place_agent(ix, now_ms);
        Ok(())
    }

    pub(crate) fn on_connected(&mut self, connected: Connected, now_ms: i64) {
        let (name, session) = (connected.agent.clone(), connected.session);
        let Some(&ix) = self.agent_names.get(&name) else {
            let reason = format!("there is no agent \"{name}\" any more");
            return self.act(Action::RefuseSession { agent: name, session, reason });
        };
        if let Some(reason) = self.refusal(ix, &connected, now_ms) {
            self.tell(Event::new(EventKind::AgentRefused, Object::Agent(name.clone()), reason.clone()));
            return self.act(Action::RefuseSession { agent: name, session, reason });
        }
        let oddity = self.oddity(ix, &connected);
        let agent = self.agent_mut(ix);
        agent.failed_proof = None;
        agent.session = Some(session);
        let protocol = connected.protocol.max(PROTOCOL_VERSION_MIN);
        let speaks_other = std::mem::replace(&mut agent.protocol, protocol) != protocol;
        agent.rival = None;
        agent.refusing = connected.refusing;
        let record = &mut agent.record;
        record.agent_id = Some(connected.agent_id);
        record.boot_id = Some(connected.boot_id);
        record.incarnation = Some(connected.incarnation);
        record.software = connected.software;
        record.platform = connected.platform;
        record.connected_at_ms = Some(now_ms);
        record.disconnected_at_ms = None;
        record.stopped = false;
        let text = format!("connected: {}", record.platform);
        let data = json!({"software": record.software, "platform": record.platform, "refusing": agent.refusing,
            "runs": connected.inventory.len()});
        self.tell(Event::new(EventKind::AgentConnected, Object::Agent(name), text).with(data));
        self.write_agent(ix);
        self.rest_no_more(ix);
        if speaks_other {
            self.refresh_agent(ix);
        }
        self.expect_account(&connected.agent, session, &connected.inventory);
        self.reconcile(ix, session, &connected.inventory);
        if let Some(text) = oddity {
            self.note_trouble(ix, EventKind::AgentTrouble, text, None, now_ms);
        }
        self.place_agent(ix, now_ms);
    }

    /// Compares what the agent has with what it should have, and says what follows.
    fn reconcile(&mut self, ix: AgentIx, session: u64, inventory: &[crate::InventoryEntry]) {
        let mut there = BTreeSet::new();
        let mut known = Vec::new();
        for entry in inventory {
            there.insert(entry.run);
            let held = self.runs.get(&entry.run).map(|run| run.record.acked_seq);
            let seq = held.or(entry.stored_seq).unwrap_or(0);
            if seq > 0 && known.len() < KNOWN_MAX {
                known.push((entry.run, seq));
            }
        }
        let agent = self.agent_mut(ix);
        let name = agent.record.name.clone();
        let runs: Vec<RunId> = agent.runs.iter().copied().collect();
        let is_missing = |run: &RunId| !there.contains(run) && self.runs[run].record.accepted_at_ms.is_some();
        let missing = runs.iter().copied().filter(is_missing).collect();
        let tell_all = self.is_untold(&name);
        self.act(Action::Hello { agent: name.clone(), session, known, missing, tell_all });
        for run in runs {
            let record = &self.runs[&run].record;
            let (job, kill) = (record.job, self.jobs[&record.job].record.kill.clone());
            match (there.contains(&run), record.accepted_at_ms, kill) {
                (false, None, _) if self.holds_back(record.job) => {}
                (false, None, _) => self.order_again(run),
                // It is asked for as missing: what the agent says of it decides, and a kill now would only put a tombstone in its place.
                (false, Some(_), _) => {}
                (true, _, None) => self.tell_pause(job),
                (true, _, Some(wish)) => {
                    self.act(Action::Kill {
                        agent: name.clone(),
                        run,
                        grace_ms: wish.grace_ms,
                        by: wish.by.clone(),
                    });
                }
            }
        }
    }

    pub(crate) fn on_disconnected(&mut self, name: &str, session: u64, stopping: bool, now_ms: i64) {
        let Some(&ix) = self.agent_names.get(name) else { return };
        let agent = self.agent_mut(ix);
        if agent.session != Some(session) {
            return; // a newer session took its place
        }
        agent.session = None;
        agent.rival = None; // it did not prove to be alive: the other one may be the same host after a restart
        agent.record.disconnected_at_ms = Some(now_ms);
        agent.record.stopped = stopping;
        let runs = agent.runs.len();
        self.write_agent(ix);
        let (kind, text) = match stopping {
            true => (EventKind::AgentStopped, format!("stopped on purpose, {runs} runs are not over")),
            false => (EventKind::AgentLost, format!("its link broke, {runs} runs are not over")),
        };
        self.tell(Event::new(kind, Object::Agent(name.to_owned()), text).with(json!({"runs": runs})));
    }

    /// Every try is remembered, the first one is told.
    pub(crate) fn on_unproven(&mut self, name: &str, address: String, reason: String, now_ms: i64) {
        let Some(&ix) = self.agent_names.get(name) else { return };
        let agent = self.agent_mut(ix);
        let (way, data) = (agent.way(), json!({"address": address, "reason": reason}));
        let text = format!("a try {way} {address} failed: {reason}");
        if agent.failed_proof.replace(FailedProof { at_ms: now_ms, address, reason }).is_none() {
            self.tell(Event::new(EventKind::AgentUnproven, Object::Agent(name.to_owned()), text).with(data));
        }
    }

    pub(crate) fn on_refusing(&mut self, name: &str, session: u64, refusing: String, now_ms: i64) {
        let Some(&ix) = self.agent_names.get(name) else { return };
        let agent = self.agent_mut(ix);
        if agent.session != Some(session) {
            return;
        }
        let takes = refusing.is_empty();
        let before = std::mem::replace(&mut agent.refusing, refusing.clone());
        if before != refusing {
            let (kind, text) = match takes {
                true => (EventKind::AgentTaking, "takes runs again".to_owned()),
                false => (EventKind::AgentRefusing, format!("takes no new runs: {refusing}")),
            };
            self.tell(
                Event::new(kind, Object::Agent(name.to_owned()), text).with(json!({"reason": refusing})),
            );
        }
        if takes {
            self.rest_no_more(ix);
            self.place_agent(ix, now_ms);
        }
    }

    /// Ends the pause of an agent that had no room.
    fn rest_no_more(&mut self, ix: AgentIx) {
        let agent = self.agent_mut(ix);
        agent.pause_ms = 0;
        if let Some(until) = agent.paused_until_ms.take() {
            self.paused.remove(&(until, ix));
        }
    }

    pub(crate) fn write_agent(&mut self, ix: AgentIx) {
        let record = self.agent_mut(ix).record.clone();
        self.write(Change::AgentUpdated(record));
    }
}

fn check_slots(slots: u32) -> Result<(), Rejection> {
    if slots > SLOTS_MAX {
        return Err(Rejection::OutOfRange { what: "slots", range: format!("0 to {SLOTS_MAX}") });
    }
    Ok(())
}

fn check_secret(secret: &[u8]) -> Result<(), Rejection> {
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
        let range = format!("{SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes");
        return Err(Rejection::OutOfRange { what: "the secret", range });
    }
    Ok(())
}
