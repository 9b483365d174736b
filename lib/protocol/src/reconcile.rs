//! What the two sides make of each other's books when they meet. The server's part of the table is decided by `scheduler`, which owns its
//! books; here is what must fit into frames, and the history of a database.
//!
//! | the agent's inventory | the server's books          | what follows                                                        |
//! |-----------------------|-----------------------------|---------------------------------------------------------------------|
//! | has the run           | has messages up to `seq`    | `known`: the agent sends what comes after `seq`                     |
//! | has the run           | never heard of it           | a stray: the agent sends all of it, the server keeps it as a stray  |
//! | lacks the run         | waits for its outcome       | `missing`: the agent answers with facts or NO_RECORD                |
//! | lacks the run         | has its outcome             | nothing: it is settled                                              |
//!
//! And in time: an agent that meets a database which knows less than it once acknowledged sends its settled records again.

use crate::Malformed;
use crate::convert::bad_field;
use crate::frame::FRAME_BYTES_MAX;
use crate::message::{AgentHello, Position, RunPosition};
use crate::session::INVENTORY_RUNS_MAX;
use prost::Message;

/// Room for the head of a ServerHello: its other fields and their tags.
const SERVER_HELLO_HEAD_BYTES: usize = 4 << 10;

/// Makes both fit into one ServerHello: first what is missing (what does not fit is asked at the next connection), then what is known (what
/// does not fit is sent again in full).
pub fn fit(known: &mut Vec<RunPosition>, missing: &mut Vec<Vec<u8>>) {
    let mut room = FRAME_BYTES_MAX - SERVER_HELLO_HEAD_BYTES;
    missing.retain(|run| take_room(&mut room, run.len()));
    known.retain(|position| take_room(&mut room, position.encoded_len()));
}

/// Takes the room of one element of a repeated field; its length is below 128.
fn take_room(room: &mut usize, element_bytes: usize) -> bool {
    match room.checked_sub(2 + element_bytes) {
        Some(left) => {
            *room = left;
            true
        }
        None => false,
    }
}

/// Runs in one part of an inventory: far below the limit of a frame.
pub const PART_RUNS_MAX: usize = 20_000;

/// Cuts the agent's account into the frames in which it is sent, `more` set in all but the last.
///
/// An inventory has a limit ([`INVENTORY_RUNS_MAX`]): beyond it the newest runs are left out. They are not lost: the server does not
/// name them in its answer, so that all of them is sent.
pub fn account_parts(mut hello: AgentHello) -> Vec<AgentHello> {
    let mut inventory = std::mem::take(&mut hello.inventory);
    inventory.sort_unstable_by(|a, b| a.run_id.cmp(&b.run_id)); // a run id begins with its time
    inventory.truncate(INVENTORY_RUNS_MAX);
    let mut parts: Vec<AgentHello> = inventory
        .chunks(PART_RUNS_MAX)
        .map(|runs| AgentHello { inventory: runs.to_vec(), more: true, ..hello.clone() })
        .collect();
    match parts.last_mut() {
        Some(last) => last.more = false,
        None => parts.push(AgentHello { more: false, ..hello }),
    }
    parts
}

/// Ancestors that a position names; older ones are forgotten.
pub const ANCESTORS_MAX: usize = 16;

/// How a server's database stands to what it once acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// Nothing was ever acknowledged to this agent.
    First,
    /// It has all that it had.
    Onward,
    /// It lost commits that it had acknowledged (a restored backup, an asynchronous standby): the settled records are to be
    /// sent again.
    WentBack {
        /// How many commits.
        commits: u64,
    },
    /// It was restored from a backup of the one that acknowledged: what came after that backup is to be sent again, and nobody knows
    /// which that was.
    Restored,
    /// Another database: what is settled was settled with the other one.
    OtherDatabase,
}

impl History {
    /// Whether the agent sends its settled records again.
    pub fn resend_settled(self) -> bool {
        match self {
            History::WentBack { .. } | History::Restored => true,
            History::First | History::Onward | History::OtherDatabase => false,
        }
    }
}

/// Compares the position that was last acknowledged to this agent with where the database stands now.
pub fn history(last_acked: Option<&Position>, now: &Position) -> Result<History, Malformed> {
    let (database, commit) = read_position(now)?;
    let Some(last) = last_acked else {
        // Nothing is known of what was acknowledged, so it may have been by an ancestor.
        return Ok(if now.ancestors.is_empty() { History::First } else { History::Restored });
    };
    let (last_database, last_commit) = read_position(last)?;
    Ok(match last_commit.checked_sub(commit) {
        _ if now.ancestors.iter().any(|ancestor| *ancestor == last_database) => History::Restored,
        _ if last_database != database => History::OtherDatabase,
        None | Some(0) => History::Onward,
        Some(commits) => History::WentBack { commits },
    })
}

/// Checks a position: a database id of 16 bytes and a commit.
pub fn read_position(position: &Position) -> Result<([u8; 16], u64), Malformed> {
    let id = position.database_id.as_deref().and_then(|id| id.try_into().ok());
    let id = id.ok_or(bad_field("Position", "database_id"))?;
    Ok((id, position.commit.ok_or(bad_field("Position", "commit"))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;
    use crate::convert::run_id_field;
    use crate::message::{InventoryItem, ServerHello};
    use crate::session::{Session, Stage, Timing};
    use job::RunId;

    fn run(n: u64) -> RunId {
        RunId::new(n, u128::from(n))
    }

    fn item(n: u64, last_seq: u64) -> InventoryItem {
        InventoryItem { run_id: run_id_field(run(n)), last_seq: Some(last_seq) }
    }

    #[test]
    fn the_answer_to_the_greatest_inventory_fits_into_a_frame() {
        let mut known: Vec<_> = (1..=200_000)
            .map(|n| RunPosition { run_id: run_id_field(run(n)), seq: Some(u64::MAX) })
            .collect();
        let mut missing: Vec<_> = (200_001..=250_000).map(|n| run(n).as_bytes().to_vec()).collect();
        fit(&mut known, &mut missing);
        assert_eq!(missing.len(), 50_000, "what is missing is asked before anything else");
        let hello = ServerHello {
            epoch: Some(u64::MAX),
            incarnation: Some(vec![0; 16]),
            position: Some(Position {
                database_id: Some(vec![0; 16]),
                commit: Some(u64::MAX),
                ancestors: vec![vec![0; 16]; ANCESTORS_MAX],
            }),
            known,
            missing,
            software: "x".repeat(200),
        };
        assert!(crate::Frame::from(hello).fits());
    }

    #[test]
    fn an_account_is_cut_into_frames_that_any_server_takes() {
        let account = |runs: u64| {
            let inventory = (1..=runs).rev().map(|n| item(n, u64::MAX)).collect();
            account_parts(AgentHello { inventory, refusing: "full".into(), ..Default::default() })
        };
        for runs in [0, 1, 20_000, 20_001, 300_000] {
            let parts = account(runs);
            let mut server = Session::new(Role::Server, 1, Timing::default(), 0);
            for part in &parts {
                assert!(crate::Frame::from(part.clone()).fits());
                server.on_frame(0, &part.clone().into()).unwrap();
            }
            assert_eq!(server.stage(), Stage::Answering);
            let told: usize = parts.iter().map(|p| p.inventory.len()).sum();
            assert_eq!(told as u64, runs.min(INVENTORY_RUNS_MAX as u64));
            assert_eq!(
                parts[0].inventory.first(),
                (runs > 0).then(|| item(1, u64::MAX)).as_ref(),
                "oldest first"
            );
        }
    }

    #[test]
    fn a_database_that_went_back_in_time_is_noticed() {
        let at = |id: u8, commit| Position {
            database_id: Some(vec![id; 16]),
            commit: Some(commit),
            ancestors: Vec::new(),
        };
        assert_eq!(history(None, &at(1, 5)), Ok(History::First));
        assert_eq!(history(Some(&at(1, 5)), &at(1, 5)), Ok(History::Onward));
        assert_eq!(history(Some(&at(1, 5)), &at(1, 9)), Ok(History::Onward));
        assert_eq!(history(Some(&at(1, 5)), &at(1, 2)), Ok(History::WentBack { commits: 3 }));
        assert_eq!(history(Some(&at(1, 5)), &at(2, 2)), Ok(History::OtherDatabase));
        let restored = Position { ancestors: vec![vec![9; 16], vec![1; 16]], ..at(2, 70) };
        assert_eq!(
            history(Some(&at(1, 5)), &restored),
            Ok(History::Restored),
            "also when it is ahead by now"
        );
        assert_eq!(history(None, &restored), Ok(History::Restored), "also when nothing is remembered");
        assert_eq!(history(Some(&at(2, 5)), &restored), Ok(History::Onward));
        assert_eq!(history(Some(&at(3, 5)), &restored), Ok(History::OtherDatabase));
        assert!(history(None, &Position::default()).is_err());
    }
}
