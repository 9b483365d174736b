//! Answers to a server's questions about a run: its ledger, whether its kept files may go, and for servers of protocol 1 pieces of what it wrote.

use crate::agent::Agent;
use crate::disk::Disk;
use crate::identity::IdentityFile;
use crate::output::{self, Output};
use job::RunId;
use prost::Message;
use protocol::message::{
    Answer, AnswerBody, FileRange, FilesStored, Ledger as LedgerAnswer, Noted, OutputData, OutputRange,
    Query, QueryBody, RunFact, StreamKind,
};
use protocol::stream::Which;
use protocol::{Frame, convert};
use spool::Shelf;

/// The longest piece of output in one answer.
const PIECE_BYTES_MAX: usize = 64 << 10;

impl Agent {
    pub(crate) fn on_query(&mut self, session: u64, query: Query) {
        let run_id = match convert::run_id("Query", &query.run_id) {
            Ok(run_id) => run_id,
            Err(e) => return self.sessions.complain(session, &e.to_string()),
        };
        let Some(link) = self.sessions.link(session) else { return };
        let running = self.runs.get(&run_id).is_some_and(|run| run.is_kept());
        let acked = self.outbox.acked(run_id);
        let (disk, identity) = (self.disk.clone(), self.identity.file.clone());
        let body = query.body;
        tokio::spawn(async move {
            let answer = tokio::task::spawn_blocking(move || match body {
                Some(QueryBody::Output(range)) => piece(&disk, &identity, run_id, range, running),
                Some(QueryBody::File(range)) => kept_file(&disk, &identity, run_id, range),
                Some(QueryBody::Ledger(_)) => ledger(&disk, run_id, acked),
                Some(QueryBody::FilesStored(stored)) => files_stored(&disk, run_id, stored),
                None => AnswerBody::Failed("this agent does not know that question".into()),
            });
            let body = answer.await.unwrap_or_else(|e| AnswerBody::Failed(e.to_string()));
            // A link that is over has nobody who waits for the answer.
            let _ = link.send(Frame::Answer(Answer { query_id: query.query_id, body: Some(body) })).await;
        });
    }
}

/// A piece of output for a server of protocol 1; newer ones open a stream.
fn piece(
    disk: &Disk,
    identity: &IdentityFile,
    run_id: RunId,
    range: OutputRange,
    running: bool,
) -> AnswerBody {
    let stream = range.stream.and_then(|s| StreamKind::try_from(s).ok());
    read(disk, identity, run_id, stream.map(Which::Output), (range.offset, range.bytes_max), !running)
}

/// A range of a file that was kept; it is whole as soon as it is there.
fn kept_file(disk: &Disk, identity: &IdentityFile, run_id: RunId, range: FileRange) -> AnswerBody {
    read(disk, identity, run_id, Some(Which::Kept(range.name)), (range.offset, range.bytes_max), true)
}

fn read(
    disk: &Disk,
    identity: &IdentityFile,
    run_id: RunId,
    which: Option<Which>,
    (offset, bytes_max): (Option<u64>, Option<u32>),
    complete: bool,
) -> AnswerBody {
    let bytes_max = bytes_max.map_or(PIECE_BYTES_MAX, |bytes| bytes as usize).min(PIECE_BYTES_MAX);
    let read = match output::open(disk, run_id, which.as_ref()) {
        Ok(Output::Open(open)) => open.read(offset.unwrap_or(0), bytes_max),
        Ok(Output::NotWritten) => Ok((Vec::new(), 0)),
        Ok(Output::NoRecord) => Err(output::no_record(run_id, identity.expired_ms()).told().0),
        Err(unreadable) => Err(unreadable.told().0),
    };
    match read {
        Ok((data, size)) => AnswerBody::Output(OutputData { offset, data, size: Some(size), complete }),
        Err(reason) => AnswerBody::Failed(reason),
    }
}

/// The server has all files of the run: retention need not spare them any more. A run that is not here has none.
fn files_stored(disk: &Disk, run_id: RunId, stored: FilesStored) -> AnswerBody {
    let noted = match disk.root.find(run_id) {
        Ok(Some((_, dir))) => disk.note_files_stored(&dir, stored.files.unwrap_or(0)),
        Ok(None) => Ok(true),
        Err(e) => Err(format!("the run's directory cannot be read: {e}")),
    };
    match noted {
        Ok(complete) => AnswerBody::Noted(Noted { complete }),
        Err(reason) => AnswerBody::Failed(reason),
    }
}

fn ledger(disk: &Disk, run_id: RunId, acked_seq: Option<u64>) -> AnswerBody {
    let (shelf, dir) = match disk.root.find(run_id) {
        Ok(Some(found)) => found,
        Ok(None) => {
            return AnswerBody::Ledger(LedgerAnswer { place: "no record".into(), ..LedgerAnswer::default() });
        }
        Err(e) => return AnswerBody::Failed(format!("the run's directory cannot be read: {e}")),
    };
    let place = match shelf {
        Shelf::Live => "live",
        Shelf::Settled => "settled",
        Shelf::Quarantined => "quarantined",
    };
    match disk.read_at(&dir) {
        Ok((ledger, locked)) => {
            let last = ledger.last_seq();
            let spec = Some(ledger.spec.encode_to_vec());
            let record = |m: spool::Stored| RunFact {
                run_id: convert::run_id_field(run_id),
                seq: Some(m.seq),
                fact: m.bytes,
            };
            AnswerBody::Ledger(LedgerAnswer {
                place: place.into(),
                locked,
                records: ledger.messages.into_iter().map(record).collect(),
                acked_seq: if shelf == Shelf::Settled { Some(last) } else { acked_seq },
                spec,
            })
        }
        Err(_) if shelf == Shelf::Quarantined => {
            AnswerBody::Ledger(LedgerAnswer { place: place.into(), ..LedgerAnswer::default() })
        }
        Err(e) => AnswerBody::Failed(e.to_string()),
    }
}
