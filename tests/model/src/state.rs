//! What the model's world consists of. Everything is small and finite: one job, at most [`RUNS`] runs of it, [`AGENTS`] hosts, [`SERVERS`] servers.

use crate::bounds::Bounds;

/// Hosts with an agent.
pub const AGENTS: usize = 2;
/// Servers that may be up at the same time.
pub const SERVERS: usize = 2;
/// Runs that the job may have.
pub const RUNS: usize = 2;

/// The id of the database at the beginning; a restored one has the next.
pub const FIRST_DATABASE: u8 = 1;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A witness saw the end.
    Completed,
    /// Nothing was executed.
    NeverStarted,
    /// Nobody saw it.
    Unknown,
}

/// What a log says: ACCEPTED, perhaps STARTED, perhaps ENDED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Words {
    /// STARTED is there.
    pub started: bool,
    /// ENDED is there.
    pub ended: Option<Outcome>,
}

impl Words {
    /// The number of its last message.
    pub fn last_seq(self) -> u8 {
        1 + u8::from(self.started) + u8::from(self.ended.is_some())
    }

    /// The same log when it had `seq` messages.
    pub fn up_to(self, seq: u8) -> Words {
        let started = self.started && seq >= 2;
        Words { started, ended: self.ended.filter(|_| seq >= self.last_seq()) }
    }
}

/// Whose commands an agent obeys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    /// 0 before any.
    pub epoch: u8,
    /// Of the server's start.
    pub incarnation: u8,
}

/// A database and how far it is. Database 0: none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position {
    /// Its id.
    pub database: u8,
    /// Its commits.
    pub commit: u8,
}

/// The whole world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// By number.
    pub servers: [Server; SERVERS],
    /// By number.
    pub agents: [Agent; AGENTS],
    /// By agent and server.
    pub links: [[Option<Link>; SERVERS]; AGENTS],
    /// A copy of the first server's database.
    pub backup: Option<Database>,
    /// Runs that were made; none gets its id again.
    pub runs_made: u8,
    /// What a run's order says, which is the head of its log too: attempt and agent.
    pub orders: [Option<Order>; RUNS],
    /// Starts of servers.
    pub starts: u8,
    /// What may still go wrong.
    pub left: Bounds,
    /// What happened, for the properties only.
    pub seen: Seen,
}

/// An order to run the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Order {
    /// Counts from 1.
    pub attempt: u8,
    /// For whom.
    pub agent: u8,
}

/// Known to nobody in the model: what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// How often each run was executed.
    pub executions: [u8; RUNS],
    /// Runs whose outcome a server acknowledged.
    pub acked: [bool; RUNS],
    /// Runs that were ordered again after their agent had not received them.
    pub ordered_again: [bool; RUNS],
    /// The latest server that each agent obeyed.
    pub obeyed: [Fence; AGENTS],
    /// An agent obeyed a START of an earlier one.
    pub older_obeyed: bool,
    /// A final status became another one.
    pub final_changed: bool,
    /// A run that the backup did not know was taken over.
    pub adopted: bool,
}

/// A central server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// There is such a server at all.
    pub exists: bool,
    /// Its process runs.
    pub up: bool,
    /// Of its last start.
    pub incarnation: u8,
    /// What is committed, and the core's picture of it.
    pub database: Database,
    /// Taken in and not committed: only without the rule that commits come first.
    pub uncommitted: Option<Database>,
    /// Agents whose account was taken.
    pub sessions: [bool; AGENTS],
    /// Agents that were told this start's epoch.
    pub led: [bool; AGENTS],
    /// Agents that have not sent what they had settled, after a restore.
    pub owes_settled: [bool; AGENTS],
    /// Runs of an inventory of which nothing came yet, after a restore.
    pub owes_runs: [[bool; RUNS]; AGENTS],
}

/// What a server has on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    /// Its id and commits.
    pub at: Position,
    /// Restored from a backup of the first database.
    pub restored: bool,
    /// Raised at each opening.
    pub epoch: u8,
    /// The job.
    pub job: Job,
    /// Attempts so far.
    pub attempts: u8,
    /// Its runs.
    pub runs: [Option<Row>; RUNS],
    /// Messages of runs that are not in `runs`.
    pub strays: [Option<Stray>; RUNS],
    /// Agents that have to tell what they ran since the backup.
    pub untold: [bool; AGENTS],
}

/// The job's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// In its queue.
    Waiting,
    /// With that run.
    Placed(usize),
    /// Final.
    Over(Outcome),
}

/// A run in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Where it was placed.
    pub agent: usize,
    /// The messages that are stored.
    pub stored: Option<Words>,
    /// Dispatched or Running while `None`.
    pub ended: Option<Outcome>,
}

impl Row {
    /// The number of the last message.
    pub fn acked(&self) -> u8 {
        self.stored.map_or(0, Words::last_seq)
    }
}

/// Messages of a run that a server does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stray {
    /// Who sent them.
    pub agent: usize,
    /// What they say.
    pub words: Words,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    /// `identity`, durable: the fence.
    pub fence: Fence,
    /// `identity`: the last acknowledgement that was written down.
    pub acked: Position,
    /// `runs/` and `settled/`.
    pub disk: [Directory; RUNS],
    /// The processes of each run.
    pub hosts: [Host; RUNS],
    /// The network-processor, if it runs.
    pub np: Option<NetworkProcessor>,
}

/// Where a run's directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Nowhere.
    Nowhere,
    /// In `runs/`, whose sync is to come.
    Unsynced,
    /// In `runs/`.
    Live,
    /// In `settled/`.
    Settled,
}

/// How far a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Written {
    /// Not at all.
    No,
    /// A power cut may take it back.
    Unsynced,
    /// Durable.
    Synced,
}

/// A run's directory with its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Directory {
    /// Where.
    pub place: Place,
    /// The slot of STARTED.
    pub started: Written,
    /// STARTED is of an earlier boot.
    pub earlier_boot: bool,
    /// The slot of ENDED, durable.
    pub ended: Option<Outcome>,
}

/// The processes of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// Job-processors that have not asked for the log's lock yet.
    pub launched: u8,
    /// A job-processor has the lock.
    pub locked: bool,
    /// Its child.
    pub child: Child,
    /// Orphans of this run come to the present network-processor while it lives.
    pub of_np: bool,
    /// Orphans of this run come to the present monitor if no network-processor is nearer.
    pub of_monitor: bool,
    /// A gated child of a dead job-processor, which has not noticed while another job-processor came, and will say farewell without a look at whom the
    /// log announces.
    pub sleeper: bool,
}

/// The process that becomes the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Child {
    /// There is none.
    None,
    /// Behind the start gate.
    Gated,
    /// The job runs.
    Running,
    /// It ended; its parent has not reaped it.
    Zombie,
    /// It ended, and whoever reaped it told nobody.
    Gone,
}

/// A network-processor's memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkProcessor {
    /// The server whose session is active.
    pub active: Option<usize>,
    /// What was last acknowledged.
    pub acked: Position,
    /// The settled runs are to be sent again, and where the server stands.
    pub catching_up: Option<Position>,
    /// They are on their way, and these are not acknowledged.
    pub resent: Option<[bool; RUNS]>,
    /// Its table of runs with the outbox.
    pub runs: [Option<Run>; RUNS],
}

/// A run in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Its directory is being made.
    pub preparing: bool,
    /// The last message that was sent in this session.
    pub sent: u8,
    /// The last message that was acknowledged.
    pub acked: u8,
    /// Job-processors that were started for it.
    pub launches: u8,
    /// One of them lives, as far as is known.
    pub watched: bool,
}

/// A connection of an agent with a server. What is said on it arrives in order, or it breaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// On their way to the server, the first one first.
    pub up: Vec<Up>,
    /// On their way to the agent.
    pub down: Vec<Down>,
    /// The server's hello while its epoch is being written down.
    pub raising: Option<Hello>,
}

/// What agents say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Up {
    /// The account.
    AgentHello {
        /// The highest epoch obeyed.
        seen: u8,
        /// Runs that are not settled.
        inventory: [bool; RUNS],
    },
    /// Messages of one run from `first` on.
    Facts {
        /// The run.
        run: usize,
        /// The number of the first one.
        first: u8,
        /// The log, as far as it is sent.
        words: Words,
    },
    /// There is no such run here.
    NoRecord {
        /// The run.
        run: usize,
    },
    /// Everything that was settled is sent.
    CaughtUp,
}

/// What servers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Down {
    /// The answer to an account.
    ServerHello(Hello),
    /// Run it.
    Start {
        /// The run.
        run: usize,
        /// The epoch of the server.
        epoch: u8,
    },
    /// Everything up to `seq` is committed.
    Acks {
        /// The run.
        run: usize,
        /// The number.
        seq: u8,
        /// Where the database stands.
        at: Position,
    },
}

/// A server's answer to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// Epoch and incarnation.
    pub fence: Fence,
    /// Where the database stands.
    pub at: Position,
    /// Which databases' acknowledgements do not count: the restored one's ancestor, and its own while the agent has to tell.
    pub ancestors: [u8; 2],
    /// The last message that is stored of each run of the inventory.
    pub known: [u8; RUNS],
    /// Runs that were accepted and are not in the inventory.
    pub missing: [bool; RUNS],
}

impl Database {
    /// With one job that waits.
    pub fn first() -> Database {
        Database {
            at: Position { database: FIRST_DATABASE, commit: 1 },
            restored: false,
            epoch: 1,
            job: Job::Waiting,
            attempts: 0,
            runs: [None; RUNS],
            strays: [None; RUNS],
            untold: [false; AGENTS],
        }
    }

    /// Whether it has the run's outcome, from whoever placed it.
    pub fn has_outcome(&self, run: usize) -> bool {
        let row = self.runs[run].and_then(|row| row.stored).is_some_and(|words| words.ended.is_some());
        row || self.strays[run].is_some_and(|stray| stray.words.ended.is_some())
    }

    /// Databases whose acknowledgements do not count with that agent.
    pub fn ancestors(&self, agent: usize) -> [u8; 2] {
        let first = if self.restored { FIRST_DATABASE } else { 0 };
        [first, if self.untold[agent] { self.at.database } else { 0 }]
    }
}

impl Directory {
    /// No directory.
    pub const NOTHING: Directory =
        Directory { place: Place::Nowhere, started: Written::No, earlier_boot: false, ended: None };

    /// ENDED is durable, and with it everything that was written to the file before.
    pub fn record(&mut self, outcome: Outcome) {
        self.ended = Some(outcome);
        if self.started == Written::Unsynced {
            self.started = Written::Synced;
        }
    }
}

impl Host {
    /// No processes.
    pub const NOTHING: Host = Host {
        launched: 0,
        locked: false,
        child: Child::None,
        of_np: true,
        of_monitor: true,
        sleeper: false,
    };

    /// Whether an end that its job-processor does not see is seen by another.
    pub fn has_reaper(&self) -> bool {
        self.of_np || self.of_monitor
    }
}

impl Agent {
    /// A network-processor reads the data root.
    pub fn scan(&self) -> NetworkProcessor {
        let run = Run { preparing: false, sent: 0, acked: 0, launches: 0, watched: false };
        let runs = self.disk.map(|directory| (directory.place == Place::Live).then_some(run));
        NetworkProcessor { active: None, acked: self.acked, catching_up: None, resent: None, runs }
    }
}

impl State {
    /// One server is up, the agents too, nothing is connected.
    pub fn first(bounds: Bounds) -> State {
        let server = |exists| Server {
            exists,
            up: exists,
            incarnation: 1,
            database: Database::first(),
            uncommitted: None,
            sessions: [false; AGENTS],
            led: [false; AGENTS],
            owes_settled: [false; AGENTS],
            owes_runs: [[false; RUNS]; AGENTS],
        };
        let mut agent = Agent {
            fence: Fence::default(),
            acked: Position::default(),
            disk: [Directory::NOTHING; RUNS],
            hosts: [Host::NOTHING; RUNS],
            np: None,
        };
        agent.np = Some(agent.scan());
        State {
            servers: [server(true), server(false)],
            agents: [agent.clone(), agent],
            links: Default::default(),
            backup: None,
            runs_made: 0,
            orders: [None; RUNS],
            starts: 1,
            left: bounds,
            seen: Seen::default(),
        }
    }

    /// The link is over, and everything on it lost.
    pub fn unlink(&mut self, agent: usize, server: usize) {
        self.links[agent][server] = None;
        self.servers[server].sessions[agent] = false;
        if let Some(np) = self.agents[agent].np.as_mut().filter(|np| np.active == Some(server)) {
            np.active = None;
            np.runs.iter_mut().flatten().for_each(|run| run.sent = run.acked);
        }
    }
}
