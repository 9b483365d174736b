//! What of each run's log is on disk, sent in the present session, and acknowledged: the agent's side of delivery.
//!
//! Bookkeeping only: the messages stay on disk until somebody reads them for sending. A run with something unsent stands
//! once in a queue, oldest first; its turn is limited, so that a big backlog of one does not keep the others waiting. At most
//! [`UNACKED_MESSAGES_MAX`] messages are on their way; every acknowledgement makes room.
//!
//! A connection that ends takes back what was sent and not acknowledged. Sending twice does no harm: (run, number) is unique
//! in the server's database.

use crate::Malformed;
use crate::convert::{bad_field, run_id};
use crate::message::RunPosition;
use job::RunId;
use std::collections::{HashMap, VecDeque};

/// Messages that may be sent and not acknowledged.
pub const UNACKED_MESSAGES_MAX: u64 = 8192;
/// Messages of one run in one turn; then it is the next one's.
const TURN_MESSAGES_MAX: u64 = 64;

/// The books of every run that is not settled.
#[derive(Debug, Default)]
pub struct Outbox {
    runs: HashMap<RunId, Books>,
    /// Runs with something unsent, each at most once as far as `Books::queued` says so; others are passed over.
    queue: VecDeque<RunId>,
    /// Sum of `sent - acked`.
    unacked: u64,
    connected: bool,
}

/// `acked <= sent <= stored`.
#[derive(Clone, Copy, Debug, Default)]
struct Books {
    stored: u64,
    sent: u64,
    acked: u64,
    queued: bool,
}

impl Outbox {
    /// Empty and not connected.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// The run's log is durable up to `last_seq`. Makes the run known if it was not.
    pub fn on_stored(&mut self, run: RunId, last_seq: u64) {
        let books = self.runs.entry(run).or_default();
        books.stored = books.stored.max(last_seq);
        if self.connected && books.stored > books.sent && !books.queued {
            books.queued = true;
            self.queue.push_back(run);
        }
    }

    /// The server said what it has (`ServerHello::known`); a run that it does not name it knows nothing of. Gives the runs of
    /// which it has everything that is stored, each with the number of its last message, so that what is over can be settled.
    ///
    /// A server that has more than is stored (this data root went back in time) is believed up to what is stored.
    pub fn on_connected(&mut self, known: &[RunPosition]) -> Result<Vec<(RunId, u64)>, Malformed> {
        let mut positions = HashMap::with_capacity(known.len());
        for position in known {
            let seq = position.seq.ok_or(bad_field("RunPosition", "seq"))?;
            positions.insert(run_id("RunPosition", &position.run_id)?, seq);
        }
        self.unacked = 0;
        self.connected = true;
        let mut unsent = Vec::new();
        let mut complete = Vec::new();
        for (run, books) in &mut self.runs {
            let acked = positions.get(run).map_or(0, |seq| books.stored.min(*seq));
            *books = Books { stored: books.stored, sent: acked, acked, queued: acked < books.stored };
            match books.queued {
                true => unsent.push(*run),
                false if acked > 0 => complete.push((*run, acked)),
                false => {}
            }
        }
        unsent.sort_unstable(); // a run id begins with its time
        complete.sort_unstable();
        self.queue = unsent.into();
        Ok(complete)
    }

    /// The connection is over: what was sent and not acknowledged counts as unsent.
    pub fn on_disconnected(&mut self) {
        self.connected = false;
        self.unacked = 0;
        self.queue.clear();
        for books in self.runs.values_mut() {
            books.sent = books.acked;
            books.queued = false;
        }
    }

    /// The server committed the run's messages up to `seq`. `Some(seq)` if that is all that is stored of the run.
    /// An acknowledgement of a run that is not known, or of what is not stored, is not counted.
    pub fn on_acked(&mut self, run: RunId, seq: u64) -> Option<u64> {
        let books = self.runs.get_mut(&run)?;
        let before = books.sent - books.acked;
        books.acked = books.acked.max(seq.min(books.stored));
        books.sent = books.sent.max(books.acked);
        self.unacked = self.unacked + (books.sent - books.acked) - before;
        (books.acked == books.stored && books.stored > 0).then_some(books.stored)
    }

    /// What to send next: runs with the first and the last number of a range, together at most `limit` messages. Counts
    /// them as sent. Empty when nothing is unsent, the window is full, or nobody is connected.
    pub fn next(&mut self, limit: usize) -> Vec<(RunId, u64, u64)> {
        let mut room = UNACKED_MESSAGES_MAX.saturating_sub(self.unacked).min(limit as u64);
        let mut ranges = Vec::new();
        while self.connected && room > 0 {
            let Some(run) = self.queue.pop_front() else { break };
            let Some(books) = self.runs.get_mut(&run).filter(|books| books.queued) else { continue };
            let messages = (books.stored - books.sent).min(TURN_MESSAGES_MAX).min(room);
            if messages > 0 {
                ranges.push((run, books.sent + 1, books.sent + messages));
            }
            books.sent += messages;
            room -= messages;
            self.unacked += messages;
            books.queued = books.sent < books.stored;
            if books.queued {
                self.queue.push_back(run);
            }
        }
        ranges
    }

    /// Whether something stored waits to be sent in this session.
    pub fn has_unsent(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The run is settled, or its record is gone.
    pub fn forget(&mut self, run: RunId) {
        if let Some(books) = self.runs.remove(&run) {
            self.unacked -= books.sent - books.acked;
        }
    }

    /// Up to where the run is acknowledged, if it is known.
    pub fn acked(&self, run: RunId) -> Option<u64> {
        self.runs.get(&run).map(|books| books.acked)
    }

    /// Every run that is known, with the last message that is stored: the inventory.
    pub fn inventory(&self) -> impl Iterator<Item = (RunId, u64)> {
        self.runs.iter().map(|(run, books)| (*run, books.stored))
    }

    /// How many runs are known.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether no run is known.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::run_id_field;
    use proptest::prelude::*;

    fn run(n: u64) -> RunId {
        RunId::new(n, u128::from(n))
    }

    fn known(n: u64, seq: u64) -> RunPosition {
        RunPosition { run_id: run_id_field(run(n)), seq: Some(seq) }
    }

    #[test]
    fn nothing_is_sent_before_the_server_said_what_it_has() {
        let mut outbox = Outbox::new();
        outbox.on_stored(run(1), 3);
        assert_eq!(outbox.next(100), []);
        assert_eq!(outbox.on_connected(&[known(1, 1)]), Ok(vec![]));
        assert_eq!(outbox.next(100), [(run(1), 2, 3)]);
        assert_eq!(outbox.next(100), []);
    }

    #[test]
    fn what_the_server_has_already_is_reported_for_settling() {
        let mut outbox = Outbox::new();
        (1..=3).for_each(|n| outbox.on_stored(run(n), 4));
        let complete = outbox.on_connected(&[known(1, 4), known(2, 9)]).unwrap();
        assert_eq!(complete, [(run(1), 4), (run(2), 4)]);
        assert_eq!(outbox.next(100), [(run(3), 1, 4)]);
        assert!(outbox.on_connected(&[RunPosition::default()]).is_err());
    }

    #[test]
    fn a_lost_connection_takes_back_what_was_not_acknowledged() {
        let mut outbox = Outbox::new();
        outbox.on_stored(run(1), 4);
        outbox.on_connected(&[]).unwrap();
        assert_eq!(outbox.next(100), [(run(1), 1, 4)]);
        assert_eq!(outbox.on_acked(run(1), 2), None);
        outbox.on_disconnected();
        assert_eq!(outbox.next(100), []);
        outbox.on_connected(&[known(1, 3)]).unwrap();
        assert_eq!(outbox.next(100), [(run(1), 4, 4)]);
        assert_eq!(outbox.on_acked(run(1), 4), Some(4));
    }

    #[test]
    fn older_runs_go_first_and_a_backlog_of_one_does_not_starve_the_others() {
        let mut outbox = Outbox::new();
        outbox.on_stored(run(2), 3);
        outbox.on_stored(run(1), 1_000);
        outbox.on_connected(&[]).unwrap();
        let sent = outbox.next(200);
        assert_eq!(sent[0], (run(1), 1, TURN_MESSAGES_MAX));
        assert_eq!(sent[1], (run(2), 1, 3));
        assert_eq!(sent[2].1, TURN_MESSAGES_MAX + 1);
        outbox.on_stored(run(3), 1);
        let sent = outbox.next(TURN_MESSAGES_MAX as usize * 2);
        assert!(sent.contains(&(run(3), 1, 1)), "{sent:?}");
    }

    #[test]
    fn the_window_stops_sending_until_it_is_acknowledged() {
        let mut outbox = Outbox::new();
        let runs = UNACKED_MESSAGES_MAX + 100;
        (1..=runs).for_each(|n| outbox.on_stored(run(n), 1));
        outbox.on_connected(&[]).unwrap();
        assert_eq!(outbox.next(usize::MAX).len() as u64, UNACKED_MESSAGES_MAX);
        assert_eq!(outbox.next(usize::MAX), []);
        assert_eq!(outbox.on_acked(run(1), 1), Some(1));
        outbox.forget(run(1));
        outbox.forget(run(2)); // its message was on its way: that room comes back too
        assert_eq!(outbox.next(usize::MAX).len(), 2);
    }

    #[test]
    fn acknowledgements_that_cannot_be_change_nothing() {
        let mut outbox = Outbox::new();
        outbox.on_connected(&[]).unwrap();
        outbox.on_stored(run(1), 2);
        assert_eq!(outbox.on_acked(run(9), 1), None);
        assert_eq!(outbox.on_acked(run(1), 99), Some(2), "a server that has it all from another session");
        assert_eq!(outbox.next(10), []);
        outbox.on_stored(run(1), 3);
        assert_eq!(outbox.next(10), [(run(1), 3, 3)]);
    }

    #[test]
    fn a_run_that_is_forgotten_and_comes_back_is_sent_whole_and_once() {
        let mut outbox = Outbox::new();
        outbox.on_connected(&[]).unwrap();
        outbox.on_stored(run(1), 3);
        outbox.forget(run(1));
        outbox.on_stored(run(1), 3);
        assert_eq!(outbox.next(10), [(run(1), 1, 3)]);
        assert_eq!(outbox.next(10), []);
    }

    #[test]
    fn a_hundred_thousand_runs_all_arrive() {
        let mut outbox = Outbox::new();
        (1..=100_000).for_each(|n| outbox.on_stored(run(n), 3));
        outbox.on_connected(&[]).unwrap();
        let mut sent = 0;
        loop {
            let ranges = outbox.next(512);
            if ranges.is_empty() {
                break;
            }
            for (run, first, last) in ranges {
                sent += last - first + 1;
                if outbox.on_acked(run, last).is_some() {
                    outbox.forget(run);
                }
            }
        }
        assert_eq!((sent, outbox.len(), outbox.unacked), (300_000, 0, 0));
    }

    proptest! {
        /// Whatever happens in whatever order: nothing is sent out of order or twice in one session, the window holds, and in the end
        /// everything arrives.
        #[test]
        fn in_the_end_everything_arrives(steps in proptest::collection::vec((0u8..6, 1u64..6, 0u64..200), 1..300)) {
            let mut outbox = Outbox::new();
            let mut server: HashMap<RunId, u64> = HashMap::new();
            for (step, n, amount) in steps {
                match step {
                    0 => {
                        let positions: Vec<_> = server
                            .iter()
                            .map(|(run, seq)| RunPosition { run_id: run_id_field(*run), seq: Some(*seq) })
                            .collect();
                        outbox.on_connected(&positions).unwrap();
                    }
                    1 => outbox.on_disconnected(),
                    2 | 3 => outbox.on_stored(run(n), amount),
                    4 => {
                        outbox.on_acked(run(n), server.get(&run(n)).copied().unwrap_or(0));
                    }
                    _ => deliver(&mut outbox, &mut server, amount as usize),
                }
                let sum: u64 = outbox.runs.values().map(|books| books.sent - books.acked).sum();
                prop_assert_eq!(outbox.unacked, sum);
                prop_assert!(outbox.runs.values().all(|b| b.acked <= b.sent && b.sent <= b.stored));
            }
            outbox.on_connected(&[]).unwrap();
            server.clear();
            deliver(&mut outbox, &mut server, usize::MAX);
            let stored: HashMap<RunId, u64> = outbox.inventory().filter(|(_, seq)| *seq > 0).collect();
            prop_assert_eq!(server, stored);
        }
    }

    /// The server takes what is sent; a gap would be a lost message.
    fn deliver(outbox: &mut Outbox, server: &mut HashMap<RunId, u64>, limit: usize) {
        for (run, first, last) in outbox.next(limit) {
            let has = server.entry(run).or_default();
            assert!(first <= *has + 1, "{first} after {has}");
            *has = (*has).max(last);
        }
    }
}
