//! Answers to a server's questions about a run: its ledger, and for servers of protocol 1 pieces of its output.

use crate::agent::Agent;
use crate::disk::Disk;
use crate::output::{self, Output};
use job::RunId;
use prost::Message;
use protocol::message::{
    Answer, AnswerBody, FileRange, Ledger as LedgerAnswer, OutputData, OutputRange, Query, QueryBody,
    RunFact, StreamKind,
};
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
        let disk = self.disk.clone();
        let body = query.body;
        tokio::spawn(async move {
            let answer = tokio::task::spawn_blocking(move || match body {
                Some(QueryBody::Output(range)) => piece(&disk, run_id, range, running),
                Some(QueryBody::File(range)) => kept_file(&disk, run_id, &range),
                Some(QueryBody::Ledger(_)) => ledger(&disk, run_id, acked),
                None => AnswerBody::Failed("this agent does not know that question".into()),
            });
            let body = answer.await.unwrap_or_else(|e| AnswerBody::Failed(e.to_string()));
            // A link that is over has nobody who waits for the answer.
            let _ = link.send(Frame::Answer(Answer { query_id: query.query_id, body: Some(body) })).await;
        });
    }
}

/// A piece of output for a server of protocol 1; newer ones open a stream.
fn piece(disk: &Disk, run_id: RunId, range: OutputRange, running: bool) -> AnswerBody {
    let stream = range.stream.and_then(|s| StreamKind::try_from(s).ok());
    let offset = range.offset.unwrap_or(0);
    let bytes_max = range.bytes_max.map_or(PIECE_BYTES_MAX, |bytes| bytes as usize).min(PIECE_BYTES_MAX);
    let read = match output::open(disk, run_id, stream) {
        Ok(Output::Open(open)) => open.read(offset, bytes_max),
        Ok(Output::NotWritten) => Ok((Vec::new(), 0)),
        Ok(Output::NoRecord) => Err(output::no_record()),
        Err(reason) => Err(reason),
    };
    match read {
        Ok((data, size)) => AnswerBody::Output(OutputData {
            offset: range.offset,
            data,
            size: Some(size),
            complete: !running,
        }),
        Err(reason) => AnswerBody::Failed(reason),
    }
}

/// A range of a file that was kept; it is whole as soon as it is there.
fn kept_file(disk: &Disk, run_id: RunId, range: &FileRange) -> AnswerBody {
    let offset = range.offset.unwrap_or(0);
    let bytes_max = range.bytes_max.map_or(PIECE_BYTES_MAX, |bytes| bytes as usize).min(PIECE_BYTES_MAX);
    let read = match disk.root.find(run_id) {
        Ok(Some((_, dir))) => dir
            .open_kept_file(&range.name)
            .map_err(|e| format!("the file \"{}\" cannot be read: {e}", range.name))
            .and_then(|file| output::read(&file, offset, bytes_max)),
        Ok(None) => Err(output::no_record()),
        Err(e) => Err(format!("the run's directory cannot be read: {e}")),
    };
    match read {
        Ok((data, size)) => {
            AnswerBody::Output(OutputData { offset: Some(offset), data, size: Some(size), complete: true })
        }
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
