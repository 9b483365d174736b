//! What servers order: mirrors the answers to START and KILL in `agent/network-processor/src/agent.rs`, and what is said of a run that is not taken or
//! not known.

use crate::mutation::Mutation;
use crate::net::Conn;
use crate::network_processor::Errand;
use crate::prepare::{Preparing, Step};
use crate::run::{Keeper, Run};
use crate::world::World;
use job::{Never, Outcome, RunId};
use protocol::convert;
use protocol::message::{Kill, RefusalKind, Refused, Start, Stop};

impl World {
    pub(crate) fn is_fenced(&mut self, host: usize, conn: Conn, epoch: Option<u64>) -> bool {
        let lower = self.mutation == Some(Mutation::LowerEpoch);
        let Some(np) = self.np(host) else { return true };
        !lower && (np.active != Some(conn) || epoch != Some(np.identity.fence.epoch))
    }

    pub(crate) fn on_start(&mut self, host: usize, conn: Conn, start: Start) {
        let Ok(run) = convert::run_id("Start", &start.run_id) else {
            return self.oracle.fail("a START without a run".to_owned());
        };
        if self.is_fenced(host, conn, start.epoch) {
            return self.refuse(
                host,
                run,
                RefusalKind::Fenced,
                "a server of a later epoch commands this agent",
            );
        }
        let name = self.hosts[host].name.clone();
        self.oracle.on_obeyed(&name, start.epoch.unwrap_or(0));
        let again = self.mutation == Some(Mutation::ForgetDedup);
        let Some(np) = self.np(host) else { return };
        if np.runs.contains_key(&run) && !again {
            return;
        }
        let refusing = np.refusing.clone();
        let is_refused = np.refused.contains(&run) && self.mutation != Some(Mutation::ForgetRefusals);
        let spec = start.spec.unwrap_or_default();
        if let Err(e) = spec.check() {
            return self.refuse(host, run, RefusalKind::Invalid, &e.to_string());
        }
        if is_refused {
            return self.refuse_for_want_of_room(host, run, "it was refused when it was ordered before");
        }
        let Some(np) = self.np(host) else { return };
        let known = Run {
            timeout_ms: spec.timeout_ms,
            grace_ms: spec.grace_ms,
            launches: 1,
            ..Run::new(Keeper::Preparing)
        };
        np.runs.insert(run, known);
        let preparing = Preparing { run, spec, never: None, messages: Vec::new(), refusing };
        self.errand(host, Errand::Prepare(preparing, Step::Make));
    }

    pub(crate) fn on_kill(&mut self, host: usize, conn: Conn, kill: Kill) {
        let Ok(run) = convert::run_id("Kill", &kill.run_id) else {
            return self.oracle.fail("a KILL without a run".to_owned());
        };
        if self.is_fenced(host, conn, kill.epoch) {
            return;
        }
        if self.np_run(host, run).is_some() {
            self.want_stop(host, run, Stop { grace_ms: kill.grace_ms, by: kill.by });
        } else if let Some(np) = self.np(host) {
            np.runs.insert(run, Run::new(Keeper::Preparing));
            let reason = format!("killed by {} before this agent had received it", kill.by);
            let never = Some(Outcome::NeverStarted { reason, why: Never::Canceled });
            let preparing =
                Preparing { run, spec: Box::default(), never, messages: Vec::new(), refusing: String::new() };
            self.errand(host, Errand::Prepare(preparing, Step::Make));
        }
    }

    pub(crate) fn refuse(&mut self, host: usize, run: RunId, kind: RefusalKind, reason: &str) {
        let refused = Refused {
            run_id: convert::run_id_field(run),
            kind: Some(kind as i32),
            reason: reason.to_owned(),
        };
        if let Some(np) = self.np(host).filter(|_| kind != RefusalKind::Fenced) {
            let active = np.active;
            let candidates = np.links.iter_mut().filter(|(conn, _)| Some(**conn) != active);
            candidates.for_each(|(_, link)| link.refused.push(refused.clone()));
        }
        self.say(host, refused.into());
    }

    pub(crate) fn refuse_for_want_of_room(&mut self, host: usize, run: RunId, reason: &str) {
        if let Some(np) = self.np(host) {
            np.refused.insert(run);
        }
        self.refuse(host, run, RefusalKind::NoRoom, reason);
    }

    /// Says of a run that is not live what its log says, if it is here.
    pub(crate) fn recall(&mut self, host: usize, run: RunId) {
        self.errand(host, Errand::Recall(run, 1));
    }

    /// Says of a run that the server misses what is known.
    pub(crate) fn account_for(&mut self, host: usize, run: RunId) {
        if self.np_run(host, run).is_none() {
            self.recall(host, run);
        }
    }

    pub(crate) fn report_damaged(&mut self, host: usize, run: RunId) {
        let Some(np) = self.np(host) else { return };
        if np.active.is_none() {
            return np.damaged.push(run);
        }
        self.refuse(host, run, RefusalKind::Damaged, "the run's log is damaged; it is kept in quarantine");
    }
}
