//! Whether whoever connects under an agent's name is that agent: two hosts must never be one.
//!
//! | who comes                                              | while a session is open                         | while none is        |
//! |--------------------------------------------------------|-------------------------------------------------|----------------------|
//! | the same data root, same host, same or later start     | takes the session's place                       | is let in            |
//! | another data root                                      | refused, reported                               | refused if the known one has runs, else let in and reported |
//! | the same data root on another host (a copy, or the host was restarted) | refused; the open session is asked for a sign of life: if it gives one, it is a copy, and reported | let in |
//! | the same data root with an earlier start (rolled back, or a copy) | as a copy                            | let in and reported  |
//! | the host of a proven copy                              | refused                                         | refused, until an operator resumes the agent |
//!
//! A refused agent comes again by itself, so a host that was restarted gets in as soon as its dead session is noticed.

use crate::engine::{Agent, AgentIx, Engine};
use crate::input::{Action, Connected};
use crate::record::Trouble;
use crate::{Event, EventKind, Object};
use job::AgentId;

/// Who else claims to be an agent that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rival {
    boot_id: [u8; 16],
    /// What is wrong, for people.
    text: String,
}

impl Engine {
    /// Why this connection is not let in, if it is not. Notes what an operator has to look at.
    pub(crate) fn refusal(&mut self, ix: AgentIx, connected: &Connected, now_ms: i64) -> Option<String> {
        let agent = &self.agents[&ix];
        let record = &agent.record;
        let name = record.name.clone();
        let proven = record.trouble.as_ref().filter(|trouble| {
            trouble.rival_boot_id == Some(connected.boot_id) && record.boot_id != Some(connected.boot_id)
        });
        if let Some(trouble) = proven {
            return Some(format!(
                "{}. If this host is the right one, `lastword agent resume {name}` lets it in",
                trouble.text
            ));
        }
        if let Some(reason) = another_root(agent, connected) {
            let (text, rival) = (reason.clone(), Some(connected.boot_id));
            self.note_trouble(
                ix,
                EventKind::AgentTwoIdentities,
                text,
                rival.filter(|_| agent_is_elsewhere(&self.agents[&ix], connected)),
                now_ms,
            );
            return Some(reason);
        }
        let session = agent.session?;
        let text = copy(agent, connected)?;
        let boot_id = connected.boot_id;
        let reason = format!(
            "{text}. If this host was just restarted, it is let in as soon as its old connection is found dead"
        );
        self.agent_mut(ix).rival = Some(Rival { boot_id, text });
        self.act(Action::Probe { agent: name, session });
        Some(reason)
    }

    /// What is odd about an agent that is let in: to be noted when it was greeted, so that it is told too.
    pub(crate) fn oddity(&mut self, ix: AgentIx, connected: &Connected) -> Option<String> {
        let record = &self.agents[&ix].record;
        let name = &record.name;
        if record.agent_id? != connected.agent_id {
            let text = format!(
                "agent \"{name}\" has a new data root; it had no runs here, so it is taken for the same"
            );
            self.warn(text);
            return None;
        }
        let before = record.incarnation.filter(|before| *before > connected.incarnation)?;
        Some(format!(
            "the data root of agent \"{name}\" went back in time (start {} after start {before} was seen): it was restored \
             from a backup or copied, and what it accepted since then it does not know",
            connected.incarnation
        ))
    }

    /// The session of an agent that has a rival is alive: there are two.
    pub(crate) fn on_answered(&mut self, name: &str, session: u64, now_ms: i64) {
        let Some(&ix) = self.agent_names.get(name) else { return };
        let agent = self.agent_mut(ix);
        if agent.session != Some(session) {
            return;
        }
        if let Some(Rival { boot_id, text }) = agent.rival.take() {
            let elsewhere = agent.record.boot_id != Some(boot_id);
            let rival = elsewhere.then_some(boot_id);
            self.note_trouble(ix, EventKind::AgentTwoIdentities, text, rival, now_ms);
        }
    }

    /// Writes down what an operator has to look at, and says it to the agent that is connected too. The same trouble is said once a while only.
    pub(crate) fn note_trouble(
        &mut self,
        ix: AgentIx,
        kind: EventKind,
        text: String,
        rival_boot_id: Option<[u8; 16]>,
        now_ms: i64,
    ) {
        let record = &mut self.agent_mut(ix).record;
        let name = record.name.clone();
        let told = record.trouble.as_ref().is_some_and(|trouble| {
            trouble.text == text
                && trouble.rival_boot_id == rival_boot_id
                && (trouble.at_ms..trouble.at_ms + TELL_AGAIN_MS).contains(&now_ms)
        });
        if told {
            return;
        }
        record.trouble = Some(Trouble { text: text.clone(), at_ms: now_ms, rival_boot_id });
        self.write_agent(ix);
        self.warn(text.clone());
        self.tell(Event::new(kind, Object::Agent(name.clone()), text.clone()));
        self.act(Action::Notice { agent: name, text });
    }
}

/// The same trouble is told again after this long.
const TELL_AGAIN_MS: i64 = 60_000;

fn agent_is_elsewhere(agent: &Agent, connected: &Connected) -> bool {
    agent.record.boot_id != Some(connected.boot_id)
}

/// Why this cannot be the agent that is known by that name: it has another data root.
fn another_root(agent: &Agent, connected: &Connected) -> Option<String> {
    let known = agent.record.agent_id.filter(|id| *id != connected.agent_id)?;
    if agent.runs.is_empty() && agent.session.is_none() {
        return None;
    }
    let (name, known, new) = (&agent.record.name, AgentId(known), AgentId(connected.agent_id));
    let why = match agent.session {
        Some(_) => "which is connected".to_owned(),
        None => format!("which has {} runs that are not over", agent.runs.len()),
    };
    Some(format!(
        "agent \"{name}\" is known as data root {known}, {why}, and data root {new} ({}) wants to connect: two hosts must not have one name. \
         If its data root was lost for good, `lastword agent remove {name} --force` and add it again",
        connected.platform
    ))
}

/// What is wrong if the session that is open is alive: this is a copy of the agent's data root.
fn copy(agent: &Agent, connected: &Connected) -> Option<String> {
    let record = &agent.record;
    if record.agent_id != Some(connected.agent_id) {
        return None;
    }
    let elsewhere =
        record.boot_id.is_some_and(|boot| boot != connected.boot_id) || record.platform != connected.platform;
    let earlier = record.incarnation.is_some_and(|known| connected.incarnation < known);
    if !elsewhere && !earlier {
        return None;
    }
    Some(format!(
        "agent \"{}\" is connected from {} and its data root {} wants to connect from {} too: one data root must not be used by two \
         agents. Stop the copy and give it a data root and a name of its own",
        record.name,
        host(&record.platform),
        AgentId(connected.agent_id),
        host(&connected.platform)
    ))
}

fn host(platform: &str) -> &str {
    if platform.is_empty() { "a host without a name" } else { platform }
}
