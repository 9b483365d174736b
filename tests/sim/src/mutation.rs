//! Faults of our own, put into the drivers to show that the oracle finds them.

/// A rule that a driver breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// The server acknowledges before its commit.
    AckBeforeCommit,
    /// The agent settles a run that is over before everything of it is acknowledged.
    SettleBeforeAck,
    /// The start gate opens before STARTED is synced.
    GateBeforeStarted,
    /// A START of a run that is there is taken for a new one.
    ForgetDedup,
    /// `runs/` is not synced after the rename.
    NoDirectorySync,
    /// A server of a lower epoch, or over another than the active link, is obeyed.
    LowerEpoch,
    /// A record that was read while its writer still synced it is told to the server.
    TellBeforeSync,
    /// What an agent says of its room together with "caught up" is not heard.
    ForgetRoom,
    /// A run that was refused is accepted when it is ordered again, by an order that the refusal did not overtake.
    ForgetRefusals,
    /// What a child ended with that never executed, and could not say so, is taken for its job's end.
    TrustChild,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 10] = [
        Mutation::AckBeforeCommit,
        Mutation::SettleBeforeAck,
        Mutation::GateBeforeStarted,
        Mutation::ForgetDedup,
        Mutation::NoDirectorySync,
        Mutation::LowerEpoch,
        Mutation::TellBeforeSync,
        Mutation::ForgetRoom,
        Mutation::ForgetRefusals,
        Mutation::TrustChild,
    ];
}
