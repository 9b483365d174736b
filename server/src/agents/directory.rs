//! Who is connected right now, and how to ask them something.

use super::output::{Streams, UNREAD_BYTES_MAX};
use job::RunId;
use link::Sender;
use protocol::frame::Frame;
use protocol::message::{Answer, AnswerBody, LedgerQuery, Query, QueryBody};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

/// Every live session; cheap to clone.
#[derive(Clone, Default)]
pub struct Directory {
    shared: Arc<Shared>,
}

struct Shared {
    sessions: Mutex<HashMap<String, Arc<Live>>>,
    next_query: AtomicU64,
    /// Room for output that readers have not taken.
    unread: Arc<Semaphore>,
}

impl Default for Shared {
    fn default() -> Shared {
        let unread = Arc::new(Semaphore::new(UNREAD_BYTES_MAX));
        Shared { sessions: Mutex::default(), next_query: AtomicU64::new(0), unread }
    }
}

/// One live session.
pub(super) struct Live {
    pub(super) session: u64,
    pub(super) view: LiveView,
    pub(super) sender: Sender,
    pub(super) streams: Streams,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
}

/// What is known of a live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveView {
    /// The other end.
    pub address: SocketAddr,
    /// Since when, wall clock.
    pub since_ms: i64,
    /// Last sign of life of the agent, heartbeats included, wall clock.
    pub last_seen_ms: i64,
    /// The protocol's version.
    pub version: u32,
    /// The server dialled it.
    pub dialled_by_us: bool,
}

/// Why an agent did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It is not connected: what is asked for is kept there.
    #[error(
        "agent \"{0}\" is not connected; it keeps the output and the ledger of its runs, try again when it is back"
    )]
    Away(String),
    /// No answer in time.
    #[error("agent \"{agent}\" did not answer within {seconds} s")]
    TimedOut {
        /// Which.
        agent: String,
        /// How long was waited.
        seconds: u64,
    },
    /// It is too old to be asked.
    #[error("agent \"{agent}\" speaks protocol {speaks}, {what} needs {needs}: upgrade the agent")]
    TooOld {
        /// Which.
        agent: String,
        /// The protocol version of its connection.
        speaks: u32,
        /// What was wanted of it.
        what: &'static str,
        /// The version that is needed.
        needs: u32,
    },
    /// So many read output that there is no room for one more.
    #[error("too many read output at the same time; try again in a moment")]
    Crowded,
    /// The server stops.
    #[error("the server stops; ask again from where the answer ended")]
    Stopping,
    /// It said that it is gone for good.
    #[error("agent \"{agent}\" has it no more: {reason}")]
    Gone {
        /// Which.
        agent: String,
        /// Why.
        reason: String,
    },
    /// It said that it cannot.
    #[error("agent \"{agent}\" cannot answer: {reason}")]
    Failed {
        /// Which.
        agent: String,
        /// Why.
        reason: String,
    },
}

/// How long an agent has for an answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How many questions may be open with one agent.
const QUERIES_MAX: usize = 256;

impl Directory {
    /// Asks an agent about a run.
    pub async fn query(&self, agent: &str, run: RunId, body: QueryBody) -> Result<AnswerBody, QueryError> {
        let live = self.get(agent).ok_or_else(|| QueryError::Away(agent.to_owned()))?;
        self.ask(agent, &live, run, body).await
    }

    /// The same in a certain session.
    pub(super) async fn ask(
        &self,
        agent: &str,
        live: &Live,
        run: RunId,
        body: QueryBody,
    ) -> Result<AnswerBody, QueryError> {
        let away = || QueryError::Away(agent.to_owned());
        let failed = |reason: &str| QueryError::Failed { agent: agent.to_owned(), reason: reason.to_owned() };
        let query_id = self.shared.next_query.fetch_add(1, Ordering::Relaxed) + 1;
        let (reply, answer) = oneshot::channel();
        if !live.open(query_id, reply) {
            return Err(failed("too many questions are open with it"));
        }
        let _close = Close { live, query_id };
        let query = Query {
            query_id: Some(query_id),
            run_id: protocol::convert::run_id_field(run),
            body: Some(body),
        };
        let round = async {
            live.sender.send(Frame::Query(query)).await.map_err(|_| away())?;
            answer.await.map_err(|_| away())
        };
        let answer = tokio::time::timeout(ANSWER_MAX, round)
            .await
            .map_err(|_| QueryError::TimedOut { agent: agent.to_owned(), seconds: ANSWER_MAX.as_secs() })??;
        match answer.body {
            Some(AnswerBody::Failed(reason)) => Err(failed(&reason)),
            Some(body @ (AnswerBody::Output(_) | AnswerBody::Ledger(_) | AnswerBody::Noted(_))) => Ok(body),
            None => Err(failed("its answer is of a kind that this version does not know")),
        }
    }

    /// Refuses what an agent is too old for: `what` (for people) is done by frames of `kind` (`protocol::frame::kind`). One that is not
    /// connected is not refused: it may be newer when it is back.
    pub fn check_speaks(&self, agent: &str, kind: u16, what: &'static str) -> Result<(), QueryError> {
        let needs = protocol::frame::since(kind).unwrap_or(u32::MAX);
        match self.get(agent).map(|live| live.view.version) {
            Some(speaks) if speaks < needs => {
                Err(QueryError::TooOld { agent: agent.to_owned(), speaks, what, needs })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How long a question and its answer take: through the link and the agent's own loop.
    pub async fn ping(&self, agent: &str) -> Result<Duration, QueryError> {
        let began = Instant::now();
        match self.query(agent, RunId::new(0, 0), QueryBody::Ledger(LedgerQuery {})).await {
            Ok(_) | Err(QueryError::Failed { .. }) => Ok(began.elapsed()),
            Err(
                e @ (QueryError::Away(_)
                | QueryError::TimedOut { .. }
                | QueryError::TooOld { .. }
                | QueryError::Gone { .. }
                | QueryError::Crowded
                | QueryError::Stopping),
            ) => Err(e),
        }
    }

    /// What is known of an agent's live session.
    pub fn live(&self, agent: &str) -> Option<LiveView> {
        self.get(agent).map(|live| LiveView { last_seen_ms: live.sender.heard_at_ms(), ..live.view.clone() })
    }

    /// How many agents are connected.
    pub fn connected(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn insert(&self, agent: &str, live: Arc<Live>) {
        self.lock().insert(agent.to_owned(), live);
    }

    /// Takes a session out, unless a newer one took its place.
    pub(super) fn remove(&self, agent: &str, session: u64) {
        let mut sessions = self.lock();
        if sessions.get(agent).is_some_and(|live| live.session == session) {
            sessions.remove(agent);
        }
    }

    pub(super) fn unread(&self) -> Arc<Semaphore> {
        Arc::clone(&self.shared.unread)
    }

    pub(super) fn get(&self, agent: &str) -> Option<Arc<Live>> {
        self.lock().get(agent).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Live>>> {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    pub(super) fn new(session: u64, view: LiveView, sender: Sender) -> Live {
        Live { session, view, sender, streams: Streams::default(), waiting: Mutex::default() }
    }

    /// Hands an answer to whoever asked; one that nobody waits for any more is dropped.
    pub(super) fn on_answer(&self, answer: Answer) {
        let reply = answer.query_id.and_then(|id| self.lock().remove(&id));
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
    }

    /// The session is over: nobody waits for it any longer.
    pub(super) fn on_closed(&self) {
        self.streams.close();
        self.lock().clear();
    }

    fn open(&self, query_id: u64, reply: oneshot::Sender<Answer>) -> bool {
        let mut waiting = self.lock();
        let room = waiting.len() < QUERIES_MAX;
        if room {
            waiting.insert(query_id, reply);
        }
        room
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a question when nobody waits for its answer any more.
struct Close<'a> {
    live: &'a Live,
    query_id: u64,
}

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.live.lock().remove(&self.query_id);
    }
}
