//! An agent that proved its secret and then says anything at all: the server's engine must not fall, nor change what is final.

use crate::frames::split;
use job::{JobId, RunId, RunIds, Status};
use protocol::Frame;
use protocol::convert::run_id;
use protocol::handshake::PROTOCOL_VERSION;
use scheduler::{
    Action, Change, Connected, Engine, Input, InventoryEntry, JobSpec, NewAgent, QueueRecord, Snapshot, hear,
};
use std::collections::BTreeMap;

const AGENT: &str = "host1";
const NOW_MS: i64 = 1_800_000_000_000;

/// One queue, one agent with two jobs, and whatever it says. Sixteen bytes of 1 stand for the id of the first run, of 2 for that of the second.
pub(crate) fn engine(bytes: &[u8]) {
    let lab = play(bytes);
    for job in [1, 2] {
        let _ = lab.engine.why(JobId(job), lab.now_ms);
    }
}

fn play(bytes: &[u8]) -> Lab {
    let mut lab = Lab::new();
    for frame in split(&lab.named(bytes)) {
        let session = lab.session;
        match frame {
            Frame::AgentHello(hello) => lab.connect(hello.inventory.iter().filter_map(|item| {
                let run = run_id("InventoryItem", &item.run_id).ok()?;
                Some(InventoryEntry { run, last_seq: item.last_seq?, stored_seq: None })
            })),
            Frame::Facts(facts) => {
                if let Ok(facts) = hear::facts(facts) {
                    lab.on(Input::Facts { agent: AGENT.into(), facts });
                }
            }
            Frame::Refused(refused) => {
                if let Ok(input) = hear::refused(AGENT.into(), session, &refused) {
                    lab.on(input);
                }
            }
            Frame::NoRecord(none) => {
                if let Ok(run) = run_id("NoRecord", &none.run_id) {
                    lab.on(Input::NoRecord { agent: AGENT.into(), session, run });
                }
            }
            Frame::AgentState(state) => lab.state(&state),
            Frame::Goodbye(goodbye) => {
                let agent = AGENT.into();
                lab.on(Input::AgentDisconnected { agent, session, stopping: goodbye.stopping });
            }
            // The input's own words for time and for a user who wants an end.
            Frame::Ping(ping) => lab.tick(ping.number.unwrap_or(0)),
            Frame::Pong(_) => lab.kill(),
            Frame::AuthHello(_)
            | Frame::AuthProof(_)
            | Frame::ServerHello(_)
            | Frame::Start(_)
            | Frame::Kill(_)
            | Frame::Acks(_)
            | Frame::Suspend(_)
            | Frame::Resume(_)
            | Frame::Query(_)
            | Frame::Answer(_)
            | Frame::StreamOpen(_)
            | Frame::StreamGrant(_)
            | Frame::StreamCancel(_)
            | Frame::StreamPiece(_)
            | Frame::StreamEnd(_)
            | Frame::StreamReceipt(_)
            | Frame::Unsupported(_)
            | Frame::Unknown { .. } => {}
        }
    }
    lab
}

struct Lab {
    engine: Engine,
    session: u64,
    now_ms: i64,
    /// How each run ended, as it was written.
    ended: BTreeMap<RunId, Status>,
    /// In the order of the jobs.
    runs: Vec<RunId>,
}

impl Lab {
    fn new() -> Lab {
        let queue =
            QueueRecord { name: "default".into(), held: false, slots: None, priority: 0, created_at_ms: 0 };
        let snapshot = Snapshot { queues: vec![queue], ..Snapshot::default() };
        let engine = Engine::restore(snapshot, RunIds::new([7; 32])).expect("an empty database is right");
        let mut lab = Lab { engine, session: 0, now_ms: NOW_MS, ended: BTreeMap::new(), runs: Vec::new() };
        lab.on(Input::AddAgent(NewAgent {
            name: AGENT.into(),
            slots: 4,
            dial: None,
            secret: vec![7; 32],
            queues: vec!["default".into()],
        }));
        lab.connect(std::iter::empty());
        let job =
            JobSpec { command: vec![b"/bin/true".to_vec()], queue: "default".into(), ..JobSpec::default() };
        lab.on(Input::Submit(vec![job.clone(), job]));
        assert_eq!(lab.runs.len(), 2, "both jobs are placed");
        lab
    }

    fn named(&self, bytes: &[u8]) -> Vec<u8> {
        let mut named = bytes.to_vec();
        for (stands, run) in (1u8..).zip(&self.runs) {
            let mut at = 0;
            while let Some(found) =
                named.get(at..).and_then(|rest| rest.windows(16).position(|id| id == [stands; 16]))
            {
                at += found;
                named[at..at + 16].copy_from_slice(run.as_bytes());
            }
        }
        named
    }

    fn connect(&mut self, inventory: impl Iterator<Item = InventoryEntry>) {
        self.session += 1;
        self.on(Input::AgentConnected(Connected {
            agent: AGENT.into(),
            session: self.session,
            agent_id: [1; 16],
            boot_id: [2; 16],
            incarnation: self.session,
            protocol: PROTOCOL_VERSION,
            inventory: inventory.collect(),
            ..Connected::default()
        }));
    }

    fn state(&mut self, state: &protocol::message::AgentState) {
        let (agent, session) = (AGENT.to_owned(), self.session);
        let runs =
            state.untellable.iter().filter_map(|bytes| run_id("AgentState", &Some(bytes.clone())).ok());
        let runs: Vec<_> = runs.collect();
        if !runs.is_empty() {
            self.on(Input::Untellable { agent: agent.clone(), session, runs });
        } else if state.caught_up {
            self.on(Input::CaughtUp { agent: agent.clone(), session });
        }
        self.on(Input::AgentRefusing { agent, session, refusing: hear::for_people(&state.refusing) });
    }

    fn tick(&mut self, more_ms: u64) {
        self.now_ms = self.now_ms.saturating_add(i64::try_from(more_ms % 1_000_000_000).unwrap_or(0));
        self.on(Input::Tick);
    }

    fn kill(&mut self) {
        self.on(Input::KillJob { job: JobId(1), by: "anna".into(), grace_ms: Some(1) });
    }

    fn on(&mut self, input: Input) {
        let _ = self.engine.on(input, self.now_ms);
        let output = self.engine.take();
        for action in &output.actions {
            assert!(!matches!(action, Action::Defect(_)), "{action:?}");
            if let Action::Start { run, .. } = action
                && !self.runs.contains(run)
            {
                self.runs.push(*run);
            }
        }
        for change in &output.changes {
            if let Change::RunInserted(run) | Change::RunUpdated(run) = change {
                let before = self.ended.get(&run.id);
                assert!(
                    before.is_none_or(|status| *status == run.status),
                    "{before:?} became {}",
                    run.status
                );
                if run.status.is_final() {
                    self.ended.insert(run.id, run.status);
                }
            }
        }
        self.engine.on_committed(output.passing, output.changes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_ends_both_jobs() {
        let lab = play(include_bytes!("../../../fuzz/corpus/engine/through"));
        assert_eq!(lab.ended.values().copied().collect::<Vec<_>>(), [Status::Killed, Status::Killed]);
    }
}
