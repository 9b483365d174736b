//! Everything that is settled, sent again to a server whose database went back in time. Away from the event loop.
//!
//! | a settled run's log  | what is done                                                                              |
//! |----------------------|-------------------------------------------------------------------------------------------|
//! | can be read          | its messages are sent                                                                     |
//! | is gone              | nothing: retention was quicker                                                            |
//! | is damaged           | set aside into quarantine, and told as damaged                                            |
//! | cannot be read now   | tried again a few times; then told as damaged, and it stays where it is                   |
//!
//! A database that went back in time may know nothing of a run that cannot be told, nor which job that was. So these runs, and all in quarantine, are
//! named at the end in the place of the word that nothing is missing.

use crate::agent::Agent;
use crate::delivery::{batches, run_fact};
use crate::disk::Disk;
use crate::event::Event;
use job::RunId;
use link::Sender;
use protocol::Frame;
use protocol::convert;
use protocol::message::{AgentState, RefusalKind, Refused};
use spool::{Ledger, LedgerError, Shelf};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// Runs whose logs are read together.
const CHUNK: usize = 256;
/// Before what could not be listed or read is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a log that cannot be read now is read.
const READ_TRIES: u32 = 5;
/// So many runs that cannot be told are named.
pub(crate) const UNTELLABLE_MAX: usize = 1_000;

/// A server that is told everything that is settled.
#[derive(Debug)]
pub(crate) struct CatchingUp {
    session: u64,
    /// Where it stood when it said so: that counts when it has acknowledged all that was sent.
    position: ([u8; 16], u64),
    /// What is on its way, up to which message.
    open: HashMap<RunId, u64>,
    /// There will be no more.
    is_sent: bool,
}

impl CatchingUp {
    pub(crate) fn new(session: u64, position: ([u8; 16], u64)) -> CatchingUp {
        CatchingUp { session, position, open: HashMap::new(), is_sent: false }
    }

    pub(crate) fn on_acked(&mut self, session: u64, run_id: RunId, seq: u64) {
        if session == self.session && self.open.get(&run_id).is_some_and(|last| seq >= *last) {
            self.open.remove(&run_id);
        }
    }
}

/// How a sending of all that is settled ended.
#[derive(Debug)]
pub(crate) enum Resent {
    /// All of it was sent but for these runs, of which nothing can be told.
    All(Vec<RunId>),
    /// The link was over, or the shelf could not be listed.
    Broken,
}

impl Agent {
    /// Sends every settled record again.
    pub(crate) fn resend_settled(&mut self) {
        let Some(catching_up) = &self.catching_up else { return };
        let session = catching_up.session;
        if catching_up.is_sent || !self.sessions.is_active(session) {
            return;
        }
        let Some(link) = self.sessions.active_link().filter(|_| !self.resending) else { return };
        self.resending = true;
        let (disk, events, name) = (self.disk.clone(), self.events.clone(), self.config.name.clone());
        tokio::spawn(async move {
            let untellable = Vec::new();
            let own = events.clone();
            let resent = Resend { disk, session, link, events: own, agent: name, untellable }.all().await;
            let _ = events.send(Event::Resent(session, resent.unwrap_or(Resent::Broken)));
        });
    }

    pub(crate) fn on_resent(&mut self, session: u64, resent: Resent) {
        self.resending = false;
        match (&mut self.catching_up, resent) {
            (Some(catching_up), Resent::All(untellable)) if catching_up.session == session => {
                catching_up.is_sent = true;
                self.say_caught_up(&untellable);
                self.catch_up();
            }
            (Some(_), _) => self.resend_settled(), // a newer connection may have come while this one was ending
            (None, _) => {}
        }
    }

    /// These are about to be sent again, up to those messages.
    pub(crate) fn on_resending(&mut self, session: u64, sent: Vec<(RunId, u64)>) {
        if let Some(catching_up) = self.catching_up.as_mut().filter(|to| to.session == session) {
            catching_up.open.extend(sent);
        }
    }

    /// When everything that was sent again is acknowledged, what the server knows counts. If its link breaks before, all is sent again.
    pub(crate) fn catch_up(&mut self) {
        if let Some(caught_up) = self.catching_up.take_if(|to| to.is_sent && to.open.is_empty()) {
            self.identity.acked = caught_up.position;
            self.identity.dirty = true;
        }
    }

    /// Says that the server lacks nothing that it once acknowledged to this agent, or names the runs of which nobody can tell.
    pub(crate) fn say_caught_up(&mut self, untellable: &[RunId]) {
        if let Some(first) = untellable.first() {
            let runs = untellable.len();
            tracing::error!(runs, %first, "the server's database may lack runs whose logs cannot be read here: nobody can tell what they were");
        }
        self.say(Frame::AgentState(AgentState {
            refusing: self.refusing.clone(),
            caught_up: untellable.is_empty(),
            untellable: untellable.iter().take(UNTELLABLE_MAX).map(|run| run.as_bytes().to_vec()).collect(),
        }));
    }
}

struct Resend {
    disk: Disk,
    session: u64,
    link: Sender,
    events: UnboundedSender<Event>,
    agent: String,
    untellable: Vec<RunId>,
}

/// `None`: broken off.
impl Resend {
    async fn all(mut self) -> Option<Resent> {
        let (Some(settled), Some(quarantined)) =
            (self.list(Shelf::Settled).await, self.list(Shelf::Quarantined).await)
        else {
            tokio::time::sleep(PAUSE).await; // what cannot be listed was not sent
            return None;
        };
        for run_id in quarantined {
            self.tell_damaged(run_id, "its log is damaged; it is kept in quarantine").await?;
        }
        let mut open = settled;
        for tries in 1..=READ_TRIES {
            open = self.send(&open, tries == READ_TRIES).await?;
            if open.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Some(Resent::All(self.untellable))
    }

    async fn list(&self, shelf: Shelf) -> Option<Vec<RunId>> {
        let root = self.disk.root.clone();
        tokio::task::spawn_blocking(move || root.list(shelf)).await.ok()?.ok()
    }

    /// Sends what can be read of these; gives those that cannot be read now, none in the last round.
    async fn send(&mut self, runs: &[RunId], last: bool) -> Option<Vec<RunId>> {
        let mut again = Vec::new();
        for chunk in runs.chunks(CHUNK) {
            let (disk, chunk) = (self.disk.clone(), chunk.to_vec());
            let read = tokio::task::spawn_blocking(move || read(&disk, chunk)).await.ok()?;
            let (mut facts, mut sent) = (Vec::new(), Vec::new());
            for (run_id, ledger) in read {
                match ledger {
                    Ok(ledger) => {
                        facts.extend(ledger.messages.iter().map(|m| run_fact(run_id, m)));
                        sent.push((run_id, ledger.last_seq()));
                    }
                    Err(LedgerError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {}
                    Err(LedgerError::Io(_)) if !last => again.push(run_id),
                    Err(e) => self.tell_damaged(run_id, &e.to_string()).await?,
                }
            }
            // Known before the first acknowledgement can come.
            self.events.send(Event::Resending(self.session, sent)).ok()?;
            for batch in batches(facts) {
                self.link.send(Frame::Facts(batch)).await.ok()?;
            }
        }
        Some(again)
    }

    async fn tell_damaged(&mut self, run_id: RunId, what: &str) -> Option<()> {
        let reason = format!("agent {}: {what}", self.agent);
        let (run, kind) = (convert::run_id_field(run_id), Some(RefusalKind::Damaged as i32));
        self.untellable.push(run_id);
        self.link.send(Frame::Refused(Refused { run_id: run, kind, reason })).await.ok()
    }
}

fn read(disk: &Disk, runs: Vec<RunId>) -> Vec<(RunId, Result<Ledger, LedgerError>)> {
    runs.into_iter().map(|run_id| (run_id, disk.read_settled(run_id))).collect()
}
