//! Answers to a server's questions about a run: ranges of its output, its ledger.

use crate::agent::Agent;
use crate::disk::Disk;
use job::RunId;
use prost::Message;
use protocol::message::{
    Answer, AnswerBody, Ledger as LedgerAnswer, OutputData, OutputRange, Query, QueryBody, RunFact,
    StreamKind,
};
use protocol::{Frame, convert};
use spool::{RunDir, Shelf};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The longest piece of output in one answer, bytes.
const OUTPUT_BYTES_MAX: u32 = 64 * 1024;

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
                Some(QueryBody::Output(range)) => output(&disk, run_id, range, running),
                Some(QueryBody::Ledger(_)) => ledger(&disk, run_id, acked),
                None => AnswerBody::Failed("this agent does not know that question".into()),
            });
            let body = answer.await.unwrap_or_else(|e| AnswerBody::Failed(e.to_string()));
            // A link that is over has nobody who waits for the answer.
            let _ = link.send(Frame::Answer(Answer { query_id: query.query_id, body: Some(body) })).await;
        });
    }
}

fn output(disk: &Disk, run_id: RunId, range: OutputRange, running: bool) -> AnswerBody {
    let stream = range.stream.and_then(|s| StreamKind::try_from(s).ok());
    let read = |dir: &RunDir| {
        let path = match stream {
            Some(StreamKind::Stdout) => dir.out(),
            Some(StreamKind::Stderr) => dir.err(),
            Some(StreamKind::Unspecified) | None => return Err(io::ErrorKind::InvalidInput.into()),
        };
        match File::open(path) {
            Ok(file) => {
                read_range(&file, range.offset.unwrap_or(0), range.bytes_max.unwrap_or(OUTPUT_BYTES_MAX))
            }
            // Nothing was ever started, or not yet.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((Vec::new(), 0)),
            Err(e) => Err(e),
        }
    };
    match disk.root.find(run_id) {
        Ok(Some((shelf, dir))) => match read(&dir) {
            Ok((data, size)) => AnswerBody::Output(OutputData {
                offset: range.offset,
                data,
                size: Some(size),
                complete: !(running && shelf == Shelf::Live),
            }),
            Err(e) => AnswerBody::Failed(format!("the output cannot be read: {e}")),
        },
        Ok(None) => AnswerBody::Failed(
            "the agent has no record of this run; its output may be past its retention".into(),
        ),
        Err(e) => AnswerBody::Failed(format!("the run's directory cannot be read: {e}")),
    }
}

fn read_range(file: &File, offset: u64, bytes_max: u32) -> io::Result<(Vec<u8>, u64)> {
    let size = file.metadata()?.len();
    let wanted = size.saturating_sub(offset).min(u64::from(bytes_max.min(OUTPUT_BYTES_MAX)));
    let mut data = vec![0; usize::try_from(wanted).unwrap_or(0)];
    let mut filled = 0;
    while filled < data.len() {
        match file.read_at(&mut data[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    data.truncate(filled);
    Ok((data, size))
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
