//! One connection of one agent, from its account of itself to the end.

use super::Directory;
use super::directory::{Live, LiveView};
use super::output::say_receipts;
use crate::core::{Handle, ToAgent};
use crate::db::{Database, DbError};
use job::RunId;
use link::{Link, Peer, Receiver, Sender};
use protocol::Malformed;
use protocol::convert::{bad_field, run_id, run_id_field};
use protocol::frame::Frame;
use protocol::message::{
    Acks, AgentHello, AgentState, Goodbye, InventoryItem, Kill, LedgerQuery, Position, QueryBody, Resume,
    RunPosition, ServerHello, Start, Suspend,
};
use protocol::reconcile::ANCESTORS_MAX;
use protocol::stream::StreamError;
use scheduler::{Connected, Input, InventoryEntry, hear};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// What every session needs.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) handle: Handle,
    pub(super) database: Arc<dyn Database>,
    pub(super) directory: Directory,
    /// 16 random bytes of this start.
    pub(super) incarnation: [u8; 16],
    /// The databases from whose backups ours was restored.
    pub(super) ancestors: Arc<[[u8; 16]]>,
    pub(super) next_session: Arc<AtomicU64>,
    /// The agents that were told this start's epoch: what they remember may be ours.
    pub(super) led: Arc<Mutex<HashSet<String>>>,
}

/// Why a session ended before the link did.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error(transparent)]
    Link(#[from] link::LinkError),
    #[error("the agent sent something that cannot be read: {0}")]
    Malformed(#[from] Malformed),
    #[error("the agent broke the rules of output: {0}")]
    Stream(#[from] StreamError),
    #[error("the agent sent {0} where that makes no sense")]
    Unexpected(&'static str),
    #[error("the database cannot be read: {0}")]
    Database(#[from] DbError),
    #[error("{0}")]
    Fenced(String),
    #[error("the server stops")]
    Stopping,
}

impl From<crate::core::CoreError> for Over {
    fn from(_: crate::core::CoreError) -> Over {
        Over::Stopping
    }
}

/// So many orders wait for the agent to take them; then the connection is given up.
const ORDERS_MAX: usize = 65_536;
/// What we say of ourselves, for people.
const SOFTWARE: &str = concat!("central-server ", env!("CARGO_PKG_VERSION"));

/// Serves one connection to its end.
pub(super) async fn session(context: Context, link: Link) {
    let Link { peer, sender, mut receiver } = link;
    let number = context.next_session.fetch_add(1, Ordering::Relaxed);
    let agent = peer.name.clone();
    tracing::info!(%agent, session = number, address = %peer.address, "connected");
    let began = begin(&context, &peer, number, &sender, &mut receiver).await;
    let mut stopping = false;
    let over = match began {
        Ok(live) => {
            let over = serve(&context, &agent, number, &live, &mut receiver, &mut stopping).await;
            context.directory.remove(&agent, number);
            live.on_closed();
            over
        }
        Err(over) => over,
    };
    match &over {
        Over::Link(reason) => tracing::info!(%agent, session = number, stopping, "disconnected: {reason}"),
        Over::Malformed(_)
        | Over::Stream(_)
        | Over::Unexpected(_)
        | Over::Database(_)
        | Over::Fenced(_)
        | Over::Stopping => {
            tracing::warn!(%agent, session = number, "closing the connection: {over}");
            sender.close(Some(Goodbye { reason: over.to_string(), stopping: false }));
        }
    }
    // Only the core's end makes this fail, and then nobody needs to know.
    let _ = context.handle.tell(Input::AgentDisconnected { agent, session: number, stopping }).await;
}

/// Reads the agent's account, hands it to the core, starts what writes to the agent.
async fn begin(
    context: &Context,
    peer: &Peer,
    number: u64,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<Arc<Live>, Over> {
    let (hello, items) = read_account(receiver).await?;
    let inventory = look_up(context, items).await?;
    let epoch = term(context, &peer.name, hello.epoch.unwrap_or(0))?;
    let field = |bytes: &Option<Vec<u8>>, name| {
        bytes.as_deref().and_then(|b| <[u8; 16]>::try_from(b).ok()).ok_or(bad_field("AgentHello", name))
    };
    let connected = Connected {
        agent: peer.name.clone(),
        session: number,
        agent_id: field(&hello.agent_id, "agent_id")?,
        boot_id: field(&hello.boot_id, "boot_id")?,
        incarnation: hello.incarnation.ok_or(bad_field("AgentHello", "incarnation"))?,
        protocol: peer.version,
        software: hear::for_people(&hello.software),
        platform: hear::for_people(&hello.platform),
        refusing: hear::for_people(&hello.refusing),
        inventory,
    };
    let now_ms = os::clock::wall_ms();
    let view = LiveView {
        address: peer.address,
        since_ms: now_ms,
        last_seen_ms: now_ms,
        version: peer.version,
        dialled_by_us: peer.dialled_by_us,
    };
    let live = Arc::new(Live::new(number, view, sender.clone()));
    let (port, orders) = mpsc::channel(ORDERS_MAX);
    tokio::spawn(say_receipts(Arc::clone(&live)));
    tokio::spawn(write(context.clone(), peer.name.clone(), Arc::clone(&live), epoch, orders));
    context.handle.connected(connected, port).await?;
    Ok(live)
}

/// The epoch under which this agent is commanded. An agent that obeyed a later one, or the same one of another start, is commanded by another
/// server, or this database went back in time: only a person can tell, and says so with `epoch_min`.
fn term(context: &Context, agent: &str, seen: u64) -> Result<u64, Over> {
    let ours = context.database.identity().epoch;
    let mut led = lock(&context.led);
    if seen < ours || (seen == ours && led.contains(agent)) {
        led.insert(agent.to_owned());
        return Ok(ours);
    }
    let reason = format!(
        "agent \"{agent}\" obeys epoch {seen} of another server, and this one has {ours}; if this database was restored from a backup and no other \
         server uses it, set epoch_min = {} in [node] and restart",
        seen.saturating_add(1)
    );
    context.handle.on_fenced(agent, reason.clone());
    Err(Over::Fenced(reason))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All parts of the account; the link limits how many runs they may name.
async fn read_account(receiver: &mut Receiver) -> Result<(AgentHello, Vec<InventoryItem>), Over> {
    let mut items = Vec::new();
    loop {
        let frame = receiver.recv().await?;
        let Frame::AgentHello(mut hello) = frame else { return Err(Over::Unexpected(frame.name())) };
        items.append(&mut hello.inventory);
        if !hello.more {
            return Ok((hello, items));
        }
    }
}

/// Adds what the database has of the runs. The core knows better about those that are not over.
async fn look_up(context: &Context, items: Vec<InventoryItem>) -> Result<Vec<InventoryEntry>, Over> {
    let database = Arc::clone(&context.database);
    let look_up = move || {
        let entry = |item: InventoryItem| -> Result<InventoryEntry, Over> {
            let run = run_id("InventoryItem", &item.run_id)?;
            let last_seq = item.last_seq.ok_or(bad_field("InventoryItem", "last_seq"))?;
            let stored_seq = match database.run(run)? {
                Some(record) => record.acked_seq,
                None => database.stray_seq(run)?,
            };
            Ok(InventoryEntry { run, last_seq, stored_seq: Some(stored_seq) })
        };
        items.into_iter().map(entry).collect()
    };
    tokio::task::spawn_blocking(look_up).await.map_err(|_| Over::Stopping)?
}

/// Takes what the agent sends until the link is over.
async fn serve(
    context: &Context,
    agent: &str,
    session: u64,
    live: &Live,
    receiver: &mut Receiver,
    stopping: &mut bool,
) -> Over {
    loop {
        let frame = match receiver.recv().await {
            Ok(frame) => frame,
            Err(e) => {
                *stopping |= matches!(&e, link::LinkError::Goodbye { stopping: true, .. });
                return Over::Link(e);
            }
        };
        let agent = agent.to_owned();
        let input = match frame {
            Frame::Facts(facts) => hear::facts(facts).map(|facts| Input::Facts { agent, facts }),
            Frame::Refused(refused) => hear::refused(agent, session, &refused),
            Frame::NoRecord(none) => {
                run_id("NoRecord", &none.run_id).map(|run| Input::NoRecord { agent, session, run })
            }
            Frame::AgentState(state) => {
                let told = match read_told(context, &agent, session, &state).await {
                    Ok(told) => told,
                    Err(over) => return over,
                };
                if let Some(told) = told
                    && let Err(e) = context.handle.tell(told).await
                {
                    return e.into();
                }
                Ok(Input::AgentRefusing { agent, session, refusing: hear::for_people(&state.refusing) })
            }
            Frame::Answer(answer) => {
                live.on_answer(answer);
                continue;
            }
            Frame::StreamPiece(piece) => match live.streams.on_piece(piece) {
                Ok(()) => continue,
                Err(e) => return e.into(),
            },
            Frame::StreamEnd(end) => {
                live.streams.on_end(end);
                continue;
            }
            // The link keeps these to itself.
            Frame::Ping(_)
            | Frame::Pong(_)
            | Frame::Goodbye(_)
            | Frame::Unsupported(_)
            | Frame::Unknown { .. } => {
                continue;
            }
            other @ (Frame::AuthHello(_)
            | Frame::AuthProof(_)
            | Frame::AgentHello(_)
            | Frame::ServerHello(_)
            | Frame::Start(_)
            | Frame::Kill(_)
            | Frame::Suspend(_)
            | Frame::Resume(_)
            | Frame::Acks(_)
            | Frame::Query(_)
            | Frame::StreamOpen(_)
            | Frame::StreamGrant(_)
            | Frame::StreamCancel(_)
            | Frame::StreamReceipt(_)) => return Over::Unexpected(other.name()),
        };
        match input {
            Ok(input) => {
                if context.handle.tell(input).await.is_err() {
                    return Over::Stopping;
                }
            }
            Err(e) => return e.into(),
        }
    }
}

/// What an agent's word of itself says about how much it has told, if it says that.
async fn read_told(
    context: &Context,
    agent: &str,
    session: u64,
    state: &AgentState,
) -> Result<Option<Input>, Over> {
    if state.untellable.is_empty() && !state.caught_up {
        return Ok(None);
    }
    let agent = agent.to_owned();
    // What the database has, though it went back in time, is accounted for.
    let runs: Vec<RunId> = (state.untellable.iter())
        .map(|bytes| run_id("AgentState", &Some(bytes.clone())))
        .collect::<Result<_, _>>()?;
    let database = Arc::clone(&context.database);
    let look_up = move || {
        let mut unknown = Vec::new();
        for run in runs {
            if database.run(run)?.is_none() {
                unknown.push(run);
            }
        }
        Ok::<_, DbError>(unknown)
    };
    let unknown = tokio::task::spawn_blocking(look_up).await.map_err(|_| Over::Stopping)??;
    Ok(Some(match unknown.is_empty() {
        true => Input::CaughtUp { agent, session },
        false => Input::Untellable { agent, session, runs: unknown },
    }))
}

/// Tells the agent what the core says, until the core lets go of the session.
async fn write(
    context: Context,
    agent: String,
    live: Arc<Live>,
    epoch: u64,
    mut orders: mpsc::Receiver<ToAgent>,
) {
    while let Some(order) = orders.recv().await {
        let frame = match order {
            ToAgent::Close { reason, stopping } => {
                live.sender.close(Some(Goodbye { reason, stopping }));
                return;
            }
            ToAgent::Hello { known, missing, tell_all, commit } => {
                let position =
                    Position { ancestors: ancestors(&context, tell_all), ..position(&context, commit) };
                hello(epoch, &context.incarnation, known, missing, position)
            }
            ToAgent::Start { run, spec } => {
                Frame::Start(Start { epoch: Some(epoch), run_id: run_id_field(run), spec: Some(spec) })
            }
            ToAgent::Kill { run, grace_ms, by } => {
                Frame::Kill(Kill { epoch: Some(epoch), run_id: run_id_field(run), grace_ms, by })
            }
            ToAgent::Pause { run, suspend: true, by } => {
                Frame::Suspend(Suspend { epoch: Some(epoch), run_id: run_id_field(run), by })
            }
            ToAgent::Pause { run, suspend: false, by } => {
                Frame::Resume(Resume { epoch: Some(epoch), run_id: run_id_field(run), by })
            }
            ToAgent::Acks { acks, commit } => {
                let position = Some(position(&context, commit));
                Frame::Acks(Acks { acks: positions(acks), position, notice: String::new() })
            }
            ToAgent::Notice(notice) => Frame::Acks(Acks { notice, ..Acks::default() }),
            ToAgent::Probe => {
                tokio::spawn(probe(context.clone(), agent.clone(), Arc::clone(&live)));
                continue;
            }
        };
        if let Frame::Start(Start { spec: Some(spec), .. }) = &frame
            && spec.needs.is_some_and(|needs| needs > live.view.version)
        {
            // The engine places nothing where it is not honoured: this is our bug, and an order that is not given does no harm.
            tracing::error!(%agent, needs = spec.needs, "an order that this agent would not honour is not given");
            continue;
        }
        if !live.sender.speaks(frame.kind()) {
            // The wish stays on record, and is told again when the agent is back as a newer one.
            tracing::warn!(%agent, frame = frame.name(), needs = frame.since(), "the agent is too old for this");
            continue;
        }
        let is_hello = matches!(frame, Frame::ServerHello(_));
        if live.sender.send(frame).await.is_err() {
            return; // the reading half sees the end and says so
        }
        if is_hello {
            context.directory.insert(&agent, Arc::clone(&live)); // from here on it may be asked
            if live.sender.is_closed() {
                context.directory.remove(&agent, live.session); // the reading half was quicker
                return;
            }
        }
    }
    let reason =
        "another connection of this agent took its place, or it took too long to take what it was told";
    live.sender.close(Some(Goodbye { reason: reason.to_owned(), stopping: false }));
}

/// Asks this very session for a sign of life, and tells the core if it gives one.
async fn probe(context: Context, agent: String, live: Arc<Live>) {
    if context.directory.ask(&agent, &live, RunId::new(0, 0), QueryBody::Ledger(LedgerQuery {})).await.is_ok()
    {
        // Only the core's end makes this fail, and then nobody needs to know.
        let _ = context.handle.tell(Input::AgentAnswered { agent, session: live.session }).await;
    }
}

fn hello(
    epoch: u64,
    incarnation: &[u8; 16],
    known: Vec<(RunId, u64)>,
    missing: Vec<RunId>,
    position: Position,
) -> Frame {
    let (mut known, mut missing): (_, Vec<_>) =
        (positions(known), missing.into_iter().map(|run| run.as_bytes().to_vec()).collect());
    protocol::reconcile::fit(&mut known, &mut missing);
    Frame::ServerHello(ServerHello {
        epoch: Some(epoch),
        incarnation: Some(incarnation.to_vec()),
        position: Some(position),
        known,
        missing,
        software: SOFTWARE.to_owned(),
    })
}

/// The databases whose acknowledgements do not count. While the agent has to tell, ours is one of them: it may have begun to
/// acknowledge before all was sent.
fn ancestors(context: &Context, tell_all: bool) -> Vec<Vec<u8>> {
    let own = tell_all.then(|| context.database.identity().database_id);
    own.iter().chain(context.ancestors.iter()).take(ANCESTORS_MAX).map(|id| id.to_vec()).collect()
}

fn position(context: &Context, commit: u64) -> Position {
    let database_id = context.database.identity().database_id.to_vec();
    Position { database_id: Some(database_id), commit: Some(commit), ancestors: Vec::new() }
}

fn positions(positions: Vec<(RunId, u64)>) -> Vec<RunPosition> {
    positions
        .into_iter()
        .map(|(run, seq)| RunPosition { run_id: run_id_field(run), seq: Some(seq) })
        .collect()
}
