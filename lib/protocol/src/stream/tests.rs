//! Both ends against each other, over a line that takes its time, with readers of every speed.

use super::*;
use crate::Frame;
use crate::frame::{FRAME_BYTES_MAX, FrameDecoder};
use crate::message::{StreamEnd, StreamPiece};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;

fn wanted(offset: u64, follow: bool) -> Wanted {
    Wanted { offset, bytes_max: None, follow, granted: WINDOW_BYTES_MIN, gaps: true }
}

fn content(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

/// A file as a job writes it: `size` bytes are there, of all that will be.
struct File {
    size: u64,
    complete: bool,
}

impl File {
    fn look(&self, look: &Look) -> Found {
        let from = look.offset.min(self.size);
        let to = self.size.min(from + look.bytes_max as u64);
        let data = (from..to).map(|n| (n % 251) as u8).collect();
        Found { data, size: self.size, complete: self.complete, gap: None }
    }
}

fn pieces(frames: &[Frame]) -> Vec<&StreamPiece> {
    frames
        .iter()
        .filter_map(|frame| if let Frame::StreamPiece(piece) = frame { Some(piece) } else { None })
        .collect()
}

fn the_end(frames: &[Frame]) -> Option<&StreamEnd> {
    frames.iter().find_map(|frame| if let Frame::StreamEnd(end) = frame { Some(end) } else { None })
}

/// Takes every look that is due now; nothing is received meanwhile.
fn turn(sources: &mut Sources, now_ms: u64, file: &File) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(look) = sources.next(now_ms) {
        frames.extend(sources.on_found(now_ms, look.stream_id, file.look(&look)));
    }
    frames
}

#[test]
fn a_range_is_what_was_there_when_it_was_asked_for() {
    let mut sources = Sources::default();
    sources.on_open(1, Wanted { bytes_max: Some(100), ..wanted(40, false) }).unwrap();
    let frames = turn(&mut sources, 0, &File { size: 60, complete: false });
    let piece = pieces(&frames)[0];
    assert_eq!((piece.offset, piece.data.len(), piece.size, piece.complete), (Some(40), 20, Some(60), false));
    assert_eq!(the_end(&frames).map(|end| (end.complete, end.failed.clone())), Some((false, None)));
    assert!(sources.is_empty());
}

#[test]
fn beyond_the_end_begins_at_the_end_and_an_empty_file_has_a_beginning_too() {
    let mut sources = Sources::default();
    sources.on_open(1, wanted(5_000, false)).unwrap();
    let frames = turn(&mut sources, 0, &File { size: 60, complete: true });
    assert_eq!(pieces(&frames)[0].offset, Some(60));
    assert!(the_end(&frames).unwrap().complete);
    sources.on_open(2, wanted(0, true)).unwrap();
    let frames = turn(&mut sources, 0, &File { size: 0, complete: false });
    assert_eq!((pieces(&frames).len(), the_end(&frames)), (1, None));
}

#[test]
fn who_follows_is_sent_what_is_written_until_the_run_is_complete() {
    let mut sources = Sources::default();
    sources.on_open(1, wanted(0, true)).unwrap();
    turn(&mut sources, 0, &File { size: 3, complete: false });
    let look_at_ms = sources.look_at_ms().unwrap();
    assert!(
        sources.is_idle(1)
            && turn(&mut sources, look_at_ms - 1, &File { size: 9, complete: false }).is_empty()
    );
    let frames = turn(&mut sources, look_at_ms, &File { size: 9, complete: false });
    assert_eq!(pieces(&frames)[0].data.len(), 6);
    sources.on_hint(1); // the run is over: nobody waits for the next look
    let frames = turn(&mut sources, look_at_ms, &File { size: 11, complete: true });
    assert_eq!(pieces(&frames)[0].data.len(), 2);
    assert!(the_end(&frames).unwrap().complete && sources.is_empty() && sources.look_at_ms().is_none());
}

#[test]
fn looks_at_a_quiet_file_become_rare_and_growth_makes_them_frequent_again() {
    let (mut sources, mut now_ms, mut gaps) = (Sources::default(), 0, Vec::new());
    sources.on_open(1, wanted(0, true)).unwrap();
    for n in 0..30 {
        turn(&mut sources, now_ms, &File { size: u64::from(n >= 29), complete: false });
        gaps.push(sources.look_at_ms().unwrap() - now_ms);
        now_ms = sources.look_at_ms().unwrap();
    }
    assert!(gaps[0] <= LOOK_MS_MIN * 2 && gaps[28] == LOOK_MS_MAX && gaps[29] == LOOK_MS_MIN, "{gaps:?}");
}

#[test]
fn a_file_that_shrinks_ends_a_range_and_not_a_follower() {
    for follow in [false, true] {
        let mut sources = Sources::default();
        sources.on_open(1, Wanted { granted: 10, ..wanted(0, follow) }).unwrap();
        turn(&mut sources, 0, &File { size: 50, complete: false });
        sources.on_grant(1, 100);
        let frames = turn(&mut sources, 1, &File { size: 5, complete: false });
        assert_eq!(the_end(&frames).is_some_and(|end| end.failed.is_some()), !follow);
    }
}

#[test]
fn without_credit_nothing_is_sent_but_the_beginning() {
    let mut sources = Sources::default();
    sources.on_open(1, Wanted { granted: 0, ..wanted(0, true) }).unwrap();
    let file = File { size: 100, complete: true };
    let frames = turn(&mut sources, 0, &file);
    assert_eq!((pieces(&frames)[0].data.len(), pieces(&frames)[0].size), (0, Some(100)));
    assert!(turn(&mut sources, 1_000_000, &file).is_empty());
    sources.on_grant(1, 0);
    sources.on_grant(1, 30);
    assert_eq!(pieces(&turn(&mut sources, 1_000_001, &file))[0].data.len(), 30);
}

#[test]
fn many_streams_take_turns_and_one_without_a_reader_stalls_none() {
    let mut sources = Sources::default();
    for stream_id in 1..=4 {
        let granted = if stream_id == 3 { PIECE_BYTES_MAX as u64 } else { u64::MAX };
        sources.on_open(stream_id, Wanted { granted, ..wanted(0, false) }).unwrap();
    }
    let file = File { size: 10 << 20, complete: true };
    let (mut sent, mut received) = ([0u64; 5], 0);
    for now_ms in 0..200 {
        for piece in pieces(&turn(&mut sources, now_ms, &file)) {
            sent[piece.stream_id.unwrap() as usize] += piece.data.len() as u64;
            received += piece.data.len() as u64;
        }
        sources.on_receipt(now_ms, received).unwrap();
    }
    assert_eq!(sent[3], PIECE_BYTES_MAX as u64);
    assert!(
        sent[1] > 1 << 20 && sent[1].abs_diff(sent[2]) <= 64 << 10 && sent[2].abs_diff(sent[4]) <= 64 << 10
    );
}

#[test]
fn a_cancelled_stream_is_gone_whatever_it_was_doing() {
    let file = File { size: 10, complete: false };
    let mut sources = Sources::default();
    sources.on_open(1, wanted(0, true)).unwrap();
    let look = sources.next(0).unwrap();
    sources.on_cancel(1);
    assert!(
        sources.on_found(0, 1, file.look(&look)).is_empty()
            && sources.on_failed(1, "x".into(), false).is_none()
    );
    sources.on_open(2, wanted(0, true)).unwrap();
    turn(&mut sources, 0, &file);
    sources.on_cancel(2);
    assert!(sources.is_empty() && sources.look_at_ms().is_none() && sources.next(1_000_000).is_none());
}

#[test]
fn there_is_a_limit_on_streams_and_who_is_beyond_it_is_told() {
    let mut sources = Sources::default();
    for stream_id in 0..STREAMS_MAX as u64 {
        sources.on_open(stream_id, wanted(0, true)).unwrap();
    }
    let refusal = sources.on_open(9_999, wanted(0, true)).unwrap_err();
    assert!(the_end(&[*refusal]).unwrap().failed.is_some());
}

#[test]
fn a_slow_line_holds_little_and_a_quick_one_is_filled() {
    let settle = |bytes_per_ms: u64, way_ms: u64| {
        let (mut pace, mut line, mut received, mut busy_until) = (Pace::default(), VecDeque::new(), 0, 0);
        for now_ms in 0..5_000u64 {
            while line.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms) {
                received += line.pop_front().map_or(0, |(_, bytes)| bytes);
                pace.on_receipt(now_ms, received).unwrap();
            }
            while pace.room() >= 4_096 {
                pace.on_sent(now_ms, 4_096);
                busy_until = busy_until.max(now_ms * bytes_per_ms) + 4_096;
                line.push_back((busy_until / bytes_per_ms + way_ms, 4_096));
            }
        }
        (pace.in_transit(), received)
    };
    let (slow, received) = settle(5_000, 1);
    assert!(slow <= 5_000 * (2 * TRANSIT_DELAY_MS), "{slow} bytes wait before a line of 5 MB/s");
    assert!(received > 5_000 * 4_500, "and it is not idle: {received}");
    let (long, received) = settle(20_000, 40);
    assert!(long > 20_000 * 40 / 2, "a long line is filled: {long}");
    assert!(received > 20_000 * 4_000, "{received}");
    let (tiny, _) = settle(100, 1);
    assert!(tiny <= TRANSIT_BYTES_MIN + 4_096, "{tiny}");
}

#[test]
fn receipts_that_cannot_be_are_refused() {
    let mut pace = Pace::default();
    pace.on_sent(0, 10);
    assert!(pace.on_receipt(1, 11).is_err());
    assert_eq!((pace.on_receipt(1, 10), pace.on_receipt(2, 4)), (Ok(()), Ok(())));
    assert_eq!(pace.in_transit(), 0);
}

#[test]
fn an_agent_that_breaks_the_rules_is_found_out() {
    let piece =
        |offset, bytes| StreamPiece { offset: Some(offset), data: content(bytes), ..Default::default() };
    let mut sink = Sink::default();
    sink.on_piece(&piece(7, 100)).unwrap();
    assert!(matches!(sink.on_piece(&piece(100, 1)), Err(StreamError::OutOfOrder { offset: 100, due: 107 })));
    assert!(matches!(
        sink.on_piece(&piece(107, PIECE_BYTES_MAX as u64 + 1)),
        Err(StreamError::TooLong { .. })
    ));
    sink.on_piece(&piece(107, 32_000)).unwrap();
    sink.on_piece(&piece(32_107, 32_000)).unwrap();
    assert!(matches!(sink.on_piece(&piece(64_107, 2_000)), Err(StreamError::BeyondCredit { .. })));
}

/// Looks at a file of 100 bytes of which these are left out; the rest are the letter x.
fn look_beside(gap: &Range<u64>, look: &Look) -> Found {
    let skipping = look.gaps && gap.contains(&look.offset);
    let from = if skipping { gap.end } else { look.offset };
    let to = if look.gaps && from < gap.start { gap.start } else { 100 };
    let data = vec![b'x'; look.bytes_max.min((to - from) as usize)];
    Found { data, size: 100, complete: true, gap: look.gaps.then(|| gap.clone()) }
}

#[test]
fn what_the_output_limit_left_out_is_skipped_and_told_and_costs_no_credit() {
    for (wanted, expected) in [
        (wanted(0, false), vec![(0, 40), (60, 40)]),
        (wanted(50, true), vec![(60, 40)]),
        (Wanted { bytes_max: Some(45), ..wanted(0, false) }, vec![(0, 40)]),
        (Wanted { bytes_max: Some(65), ..wanted(0, false) }, vec![(0, 40), (60, 5)]),
        (Wanted { bytes_max: Some(5), ..wanted(50, false) }, vec![(55, 0)]),
        (Wanted { granted: 80, ..wanted(0, true) }, vec![(0, 40), (60, 40)]),
        (Wanted { gaps: false, ..wanted(0, false) }, vec![(0, 100)]),
    ] {
        let (mut sources, mut sink, mut frames) = (Sources::default(), Sink::default(), Vec::new());
        sources.on_open(1, wanted).unwrap();
        while let Some(look) = sources.next(0) {
            frames.extend(sources.on_found(0, 1, look_beside(&(40..60), &look)));
        }
        let pieces = pieces(&frames);
        let got: Vec<_> = pieces.iter().map(|piece| (piece.offset.unwrap(), piece.data.len())).collect();
        assert_eq!(got, expected, "{wanted:?}");
        for piece in pieces {
            assert_eq!(piece.gap(), wanted.gaps.then_some(40..60), "every piece tells it");
            sink.on_piece(piece).unwrap();
        }
        assert!(the_end(&frames).is_some_and(|end| end.failed.is_none()), "{wanted:?}");
    }
}

#[test]
fn only_what_is_told_as_left_out_may_be_skipped() {
    let piece = |offset, gap: Option<(u64, u64)>| StreamPiece {
        offset: Some(offset),
        data: content(10),
        gap_from: gap.map(|gap| gap.0),
        gap_to: gap.map(|gap| gap.1),
        ..Default::default()
    };
    for (second, fits) in [
        (piece(50, Some((10, 50))), true),
        (piece(50, Some((5, 50))), true),
        (piece(10, Some((10, 50))), true),
        (piece(50, None), false),
        (piece(50, Some((11, 50))), false),
        (piece(40, Some((10, 50))), false),
        (piece(60, Some((10, 50))), false),
    ] {
        let mut sink = Sink::default();
        sink.on_piece(&piece(0, None)).unwrap();
        assert_eq!(sink.on_piece(&second).is_ok(), fits, "{second:?}");
    }
}

/// One stream of the simulation below, as its reader sees it.
struct Reader {
    sink: Sink,
    /// What came and was not taken.
    unread: VecDeque<u8>,
    got: Vec<u8>,
    began_at: Option<u64>,
    ended: Option<StreamEnd>,
    /// Bytes per round.
    speed: usize,
}

impl Reader {
    fn on_frame(&mut self, frame: Frame) -> u64 {
        if let Frame::StreamPiece(piece) = frame {
            self.sink.on_piece(&piece).expect("within its credit and in order");
            assert!(self.ended.is_none(), "nothing follows the end");
            self.began_at.get_or_insert(piece.offset.unwrap());
            let bytes = piece.data.len() as u64;
            self.unread.extend(piece.data);
            assert!(self.unread.len() as u64 <= self.sink.window(), "bounded by the credit");
            return bytes;
        }
        self.ended = the_end(&[frame]).cloned();
        assert!(self.ended.is_some(), "a piece or the end");
        0
    }

    fn read(&mut self) -> Option<u64> {
        let bytes = self.speed.min(self.unread.len());
        self.got.extend(self.unread.drain(..bytes));
        let granted = self.sink.on_taken(bytes as u64);
        if self.sink.wants_more() {
            self.sink.widen();
        }
        granted
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_reader_gets_the_bytes_of_the_file_in_order_and_nothing_is_beyond_its_limit(
        size in 0u64..400_000,
        grows in 1u64..60_000,
        delay in 0u64..30,
        readers in proptest::collection::vec((0u64..500_000, any::<bool>(), 1usize..100_000), 1..6),
    ) {
        let mut sources = Sources::default();
        let mut file = File { size: 0, complete: false };
        let (mut to_server, mut to_agent) = (VecDeque::new(), VecDeque::new());
        let mut received = 0;
        let mut ends: Vec<Reader> = readers.iter().enumerate().map(|(n, (offset, follow, speed))| {
            sources.on_open(n as u64, wanted(*offset, *follow)).unwrap();
            Reader { sink: Sink::default(), unread: VecDeque::new(), got: Vec::new(), began_at: None, ended: None, speed: *speed }
        }).collect();
        for now_ms in 0u64.. {
            prop_assert!(now_ms < 2_000_000, "it never ends");
            file.size = (file.size + grows).min(size);
            file.complete = file.size == size;
            while to_agent.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms) {
                match to_agent.pop_front().map(|(_, said)| said).unwrap() {
                    (Some(stream_id), granted) => sources.on_grant(stream_id, granted),
                    (None, received) => sources.on_receipt(now_ms, received).unwrap(),
                }
            }
            let frames = turn(&mut sources, now_ms, &file);
            to_server.extend(frames.into_iter().map(|frame| (now_ms + delay, frame)));
            let on_the_way: usize = to_server.iter().map(|(_, f)| pieces(std::slice::from_ref(f)).iter().map(|p| p.data.len()).sum::<usize>()).sum();
            prop_assert!(on_the_way as u64 <= TRANSIT_BYTES_MAX);
            while to_server.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms) {
                let (_, frame) = to_server.pop_front().unwrap();
                let of_piece = pieces(std::slice::from_ref(&frame)).first().and_then(|piece| piece.stream_id);
                let stream_id = of_piece.or(the_end(std::slice::from_ref(&frame)).and_then(|end| end.stream_id));
                received += ends[stream_id.unwrap() as usize].on_frame(frame);
                to_agent.push_back((now_ms + delay, (None, received)));
            }
            for (n, reader) in ends.iter_mut().enumerate() {
                if let Some(granted) = reader.read() {
                    to_agent.push_back((now_ms + delay, (Some(n as u64), granted)));
                }
            }
            if ends.iter().all(|reader| reader.ended.is_some() && reader.unread.is_empty()) {
                break;
            }
        }
        let whole = content(size);
        for (reader, (_, follow, _)) in ends.iter().zip(&readers) {
            let from = reader.began_at.unwrap() as usize;
            prop_assert_eq!(&reader.got[..], &whole[from..from + reader.got.len()]);
            prop_assert_eq!(&reader.ended.as_ref().unwrap().failed, &None);
            if *follow {
                prop_assert!(reader.ended.as_ref().unwrap().complete && from + reader.got.len() == whole.len());
            }
        }
    }

    #[test]
    fn whatever_a_server_says_an_agent_does_not_panic_and_stays_within_every_credit(
        words in proptest::collection::vec((0u8..7, 0u64..5, any::<u64>(), any::<bool>()), 0..200),
    ) {
        let (mut sources, mut now_ms) = (Sources::default(), 0u64);
        let (mut granted, mut sent) = ([0u64; 5], [0u64; 5]);
        for (word, stream_id, number, flag) in words {
            let n = stream_id as usize;
            match word {
                0 | 1 => {
                    let few = Wanted { offset: number, bytes_max: flag.then_some(number), follow: flag, granted: number % 70_000, gaps: flag };
                    sources.on_open(stream_id, few).unwrap();
                    (granted[n], sent[n]) = (few.granted, 0);
                }
                2 => {
                    sources.on_grant(stream_id, number);
                    granted[n] = granted[n].max(number);
                }
                3 => sources.on_cancel(stream_id),
                4 => drop(sources.on_receipt(now_ms, number % 1_000_000)),
                5 => sources.on_hint(stream_id),
                _ => now_ms = now_ms.saturating_add(number % 1_000),
            }
            if let Some(look) = sources.next(now_ms) {
                prop_assert!(look.bytes_max <= PIECE_BYTES_MAX);
                // A disk that gives more than was asked for must not matter either.
                let found = Found { data: content(look.bytes_max as u64 + number % 10), size: number, complete: flag, gap: flag.then_some(number / 4..number / 2) };
                for piece in pieces(&sources.on_found(now_ms, look.stream_id, found)) {
                    sent[look.stream_id as usize] += piece.data.len() as u64;
                }
            }
            for n in 0..5 {
                prop_assert!(sent[n] <= granted[n], "stream {n}: {} of {}", sent[n], granted[n]);
            }
        }
    }

    #[test]
    fn whatever_an_agent_says_a_server_does_not_panic_and_keeps_it_to_its_credit(
        pieces in proptest::collection::vec((any::<u64>(), 0usize..40_000, any::<bool>(), 0u64..100_000), 0..60),
    ) {
        let (mut sink, mut at, mut unread) = (Sink::default(), 0u64, 0u64);
        for (offset, bytes, right, takes) in pieces {
            let offset = if right { at } else { offset };
            let piece = StreamPiece { offset: Some(offset), data: vec![0; bytes], ..Default::default() };
            if sink.on_piece(&piece).is_ok() {
                at = offset.saturating_add(bytes as u64);
                unread += bytes as u64;
            }
            prop_assert!(unread <= sink.window());
            let takes = takes.min(unread);
            unread -= takes;
            sink.on_taken(takes);
            if sink.wants_more() {
                sink.widen();
            }
        }
    }

    #[test]
    fn bytes_that_claim_to_be_frames_of_streams_allocate_no_more_than_they_are(
        kind in 36u16..=41,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut bytes = (payload.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&payload);
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        decoder.feed(&bytes);
        match decoder.take() {
            Ok(Some(Frame::StreamOpen(open))) => drop(Opening::read(&open)),
            Ok(Some(Frame::StreamPiece(piece))) => prop_assert!(piece.data.capacity() <= 2 * payload.len() + 64),
            Ok(_) | Err(_) => {}
        }
    }
}
