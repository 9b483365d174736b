//! How much may happen, and which protections are in force.

/// What a second server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Second {
    /// There is none.
    Never,
    /// It opens a copy of the first one's database while that one stands still and is taken for dead: the next epoch.
    TakesOver,
    /// It opened a copy of the same database at the same time: the same epoch, another incarnation.
    Twin,
}

/// How a database goes back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Back {
    /// It does not.
    Never,
    /// `lastword server restore`.
    Restored,
    /// A file is put in its place, and a person sets `epoch_min`.
    ByHand,
}

/// How often each thing may happen; counts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Hosts that exist.
    pub agents: u8,
    /// Runs that may be made.
    pub runs: u8,
    /// Connections.
    pub links: u8,
    /// Connections that break by themselves.
    pub breaks: u8,
    /// Frames that are said a second time.
    pub repeats: u8,
    /// Ends of network-processors.
    pub np_crashes: u8,
    /// Ends of job-processors.
    pub jp_crashes: u8,
    /// Ends of monitors.
    pub monitor_crashes: u8,
    /// Power cuts of hosts.
    pub power_cuts: u8,
    /// Ends of servers.
    pub server_crashes: u8,
    /// Another server.
    pub second: Second,
    /// A database that goes back.
    pub back: Back,
}

impl Bounds {
    /// One agent, one run, nothing goes wrong.
    pub const QUIET: Bounds = Bounds {
        agents: 1,
        runs: 1,
        links: 1,
        breaks: 0,
        repeats: 0,
        np_crashes: 0,
        jp_crashes: 0,
        monitor_crashes: 0,
        power_cuts: 0,
        server_crashes: 0,
        second: Second::Never,
        back: Back::Never,
    };
}

/// The protections. All are in force in [`Rules::ALL`]; a mutation takes one away.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The child waits at the start gate until STARTED is durable.
    pub start_gate: bool,
    /// The gate opens when STARTED is synced, not when it is written.
    pub sync_before_start: bool,
    /// A job-processor is started when the name in `runs/` is synced.
    pub sync_before_launch: bool,
    /// A server acknowledges what it has committed.
    pub commit_before_ack: bool,
    /// A run is settled when everything of it is acknowledged.
    pub ack_before_settle: bool,
    /// An agent refuses lower epochs.
    pub epoch_check: bool,
    /// An agent refuses its own epoch from another incarnation of a server.
    pub incarnation_check: bool,
    /// A settled run stays known.
    pub settled_is_known: bool,
    /// A final status stays.
    pub final_stays: bool,
    /// What the backup has waiting is not placed before all agents have told.
    pub recovery_waits: bool,
    /// What is not synced yet is not reported.
    pub synced_before_report: bool,
    /// A child says farewell only if the STARTED that stands in the log is its own.
    pub farewell_is_own: bool,
    /// A server's position counts when all that was sent again to it is acknowledged, not when it is on its way.
    pub resent_is_acked: bool,
}

impl Rules {
    /// Every protection.
    pub const ALL: Rules = Rules {
        start_gate: true,
        sync_before_start: true,
        sync_before_launch: true,
        commit_before_ack: true,
        ack_before_settle: true,
        epoch_check: true,
        incarnation_check: true,
        settled_is_known: true,
        final_stays: true,
        recovery_waits: true,
        synced_before_report: true,
        farewell_is_own: true,
        resent_is_acked: true,
    };
}
