//! What agents have that speak protocol 1: asked for piece by piece, and asked again while it grows. The rest of the server does not see the
//! difference; it goes when version 1 is not spoken any more.

use super::directory::{Directory, QueryError};
use super::output::{Output, Wanted};
use protocol::message::{AnswerBody, FileRange, OutputData, OutputRange, QueryBody};
use protocol::stream::Which;
use std::time::Duration;
use tokio::sync::mpsc;

/// One piece. An agent of version 1 sends no more at once.
const PIECE_BYTES: u64 = 64 << 10;
/// Between two looks at output that does not grow: the first and the longest.
const LOOK_MIN: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// Reads as [`Directory::output`] does.
pub(super) async fn open(directory: Directory, agent: String, wanted: Wanted) -> Result<Output, QueryError> {
    let mut reading = Reading { directory, agent, at: wanted.offset, end_at: None, wanted };
    let first = reading.piece(reading.wanted.bytes_max.unwrap_or(PIECE_BYTES)).await?;
    let size = first.size.unwrap_or_default();
    reading.at = reading.at.min(size);
    let limit = reading.wanted.bytes_max.map(|bytes| reading.at.saturating_add(bytes));
    reading.end_at = if reading.wanted.follow { limit } else { Some(size.min(limit.unwrap_or(u64::MAX))) };
    let (reader, output) = Output::new((reading.at, size, first.complete), None);
    tokio::spawn(reading.pump(first, reader));
    Ok(output)
}

struct Reading {
    directory: Directory,
    agent: String,
    wanted: Wanted,
    /// The next byte of the file.
    at: u64,
    /// The byte at which the reading ends.
    end_at: Option<u64>,
}

impl Reading {
    async fn piece(&self, bytes: u64) -> Result<OutputData, QueryError> {
        let offset = Some(self.at);
        let bytes_max = Some(u32::try_from(bytes.min(PIECE_BYTES)).unwrap_or(u32::MAX));
        let question = match &self.wanted.which {
            Which::Output(kind) => {
                QueryBody::Output(OutputRange { stream: Some(*kind as i32), offset, bytes_max })
            }
            Which::Kept(name) => QueryBody::File(FileRange { name: name.clone(), offset, bytes_max }),
        };
        match self.directory.query(&self.agent, self.wanted.run, question).await? {
            AnswerBody::Output(data) if data.data.len() as u64 <= bytes => Ok(data),
            AnswerBody::Output(_) | AnswerBody::Ledger(_) | AnswerBody::Noted(_) | AnswerBody::Failed(_) => {
                Err(self.failed("its answer makes no sense"))
            }
        }
    }

    async fn pump(mut self, first: OutputData, reader: mpsc::Sender<Result<Vec<u8>, QueryError>>) {
        let (mut next, mut pause) = (Ok(first), LOOK_MIN);
        loop {
            let mut piece = match next {
                Ok(piece) => piece,
                Err(error) => {
                    let _ = reader.send(Err(error)).await; // a reader that is gone needs no reason
                    return;
                }
            };
            let (size, complete) = (piece.size.unwrap_or_default(), piece.complete);
            let left = self.end_at.map_or(u64::MAX, |end_at| end_at - self.at);
            piece.data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let bytes = piece.data.len() as u64;
            self.at += bytes;
            if bytes > 0 && reader.send(Ok(piece.data)).await.is_err() {
                return;
            }
            let all_there_is = self.at >= size;
            if self.end_at == Some(self.at) || complete && all_there_is {
                return;
            }
            if all_there_is && self.wanted.follow {
                pause = if bytes > 0 { LOOK_MIN } else { (pause * 3 / 2).min(LOOK_MAX) };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = reader.closed() => return,
                }
            }
            next = match self.piece(self.end_at.map_or(PIECE_BYTES, |end_at| end_at - self.at)).await {
                Ok(piece) if piece.data.is_empty() && !self.wanted.follow => {
                    Err(self.failed("the output became shorter while it was read"))
                }
                next => next,
            };
        }
    }

    fn failed(&self, reason: &str) -> QueryError {
        QueryError::Failed { agent: self.agent.clone(), reason: reason.to_owned() }
    }
}
