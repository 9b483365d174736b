//! Preparing a run: afterwards its directory is whole and its log durable; only the sync of `runs/` is left to the caller, who shares
//! one among many.
//!
//! | a crash leaves                          | recovery                                   |
//! |-----------------------------------------|--------------------------------------------|
//! | `runs/.new-<id>` in any state           | removed: it was never accepted             |
//! | `runs/<id>` whole, `runs/` not synced   | there or not; if there, accepted as it is  |

use crate::SLOT_ENDED;
use crate::ledger::{Stored, encode};
use crate::root::{DataRoot, NEW_PREFIX, Shelf};
use job::{Outcome, RunId};
use prost::Message;
use protocol::RunSpec;
use protocol::message::{Accepted, Fact, FactBody};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use store::{Blank, Log, WriteError};

/// Zeros written in advance for appended records (a stop's reason, notes), bytes.
const ROOM_BYTES: usize = 2048;

/// Why a run was not prepared. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No blocks, no inodes, or the quota is used up.
    #[error("disk full: {0}")]
    NoRoom(io::Error),
    /// The spec is longer than a log's head may be.
    #[error("the run's specification is too long: {0}")]
    TooLong(WriteError),
    /// Anything else that the system said.
    #[error("the run directory cannot be prepared: {0}")]
    Io(io::Error),
}

/// A run that was prepared.
#[derive(Debug)]
pub struct Prepared {
    /// The messages that its log begins with, so that nobody has to read it for them.
    pub messages: Vec<Stored>,
}

/// Builds `runs/<id>` with its log: spec in the head, ACCEPTED as record 1, and the outcome too if it is known already (a run that never starts).
/// The caller syncs `runs/` before anybody is told.
pub fn prepare(
    root: &DataRoot,
    run_id: RunId,
    spec: &RunSpec,
    boot_id: [u8; 16],
    wall_ms: i64,
    never: Option<&Outcome>,
) -> Result<Prepared, PrepareError> {
    let dir = root.run(Shelf::Live, run_id);
    let temporary = root.shelf(Shelf::Live).join(format!("{NEW_PREFIX}{run_id}"));
    let done = build(&temporary, run_id, spec, boot_id, wall_ms, never).and_then(|messages| {
        os::crash::fault("run.rename")
            .and_then(|()| std::fs::rename(&temporary, dir.path()))
            .map_err(PrepareError::Io)?;
        Ok(Prepared { messages })
    });
    os::crash::point("accept.after-rename");
    if done.is_err() {
        let _ = os::disk::remove_tree(&temporary); // what stays is swept at the next start
    }
    done.map_err(|error| match error {
        PrepareError::Io(e) if os::disk::is_no_room(&e) => PrepareError::NoRoom(e),
        other @ (PrepareError::Io(_) | PrepareError::NoRoom(_) | PrepareError::TooLong(_)) => other,
    })
}

fn build(
    temporary: &Path,
    run_id: RunId,
    spec: &RunSpec,
    boot_id: [u8; 16],
    wall_ms: i64,
    never: Option<&Outcome>,
) -> Result<Vec<Stored>, PrepareError> {
    os::crash::fault("run.create")
        .and_then(|()| DirBuilder::new().mode(0o700).create(temporary))
        .map_err(PrepareError::Io)?;
    os::crash::point("accept.after-mkdir");
    let mut file = os::disk::create_new(&temporary.join("log")).map_err(PrepareError::Io)?;
    let accepted =
        encode(&Fact::new(wall_ms, FactBody::Accepted(Accepted { boot_id: Some(boot_id.to_vec()) })));
    let blank = Blank {
        owner: *run_id.as_bytes(),
        head: &spec.encode_to_vec(),
        slots: 2,
        first: &[&accepted],
        room_bytes: ROOM_BYTES,
    };
    store::create(&mut file, &blank).map_err(not_written)?;
    let mut messages = vec![Stored { seq: 1, bytes: accepted }];
    if let Some(never) = never {
        let bytes = encode(&Fact::new(wall_ms, FactBody::Ended(never.into())));
        let (mut log, _) = Log::open(file).map_err(|e| PrepareError::Io(io::Error::other(e)))?;
        let seq = log.fill(SLOT_ENDED, &bytes).map_err(not_written)?;
        messages.push(Stored { seq, bytes });
    }
    os::crash::point("accept.after-log-sync");
    os::disk::open_dir(temporary).and_then(os::disk::sync_dir).map_err(PrepareError::Io)?;
    Ok(messages)
}

fn not_written(error: WriteError) -> PrepareError {
    match error {
        WriteError::Failed(e) => PrepareError::Io(e),
        other @ (WriteError::TooLong { .. } | WriteError::Filled(_)) => PrepareError::TooLong(other),
    }
}
