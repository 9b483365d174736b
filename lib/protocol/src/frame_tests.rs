use super::*;
use crate::message::OutputData;
use proptest::prelude::*;

fn decode(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    decoder.feed(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.take()? {
        frames.push(frame);
    }
    Ok(frames)
}

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(bytes.len(), frame.encoded_len());
    bytes
}

#[test]
fn the_bytes_are_those_of_the_document() {
    let frame = Frame::from(Ping { number: Some(300) });
    assert_eq!(encoded(&frame), [0, 0, 0, 7, 0, 48, 0, 0, 0x08, 0xac, 0x02]);
}

#[test]
fn every_kind_has_a_number_of_its_own() {
    let mut numbers: Vec<u16> = KINDS.iter().map(|(_, kind)| *kind).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), KINDS.len());
}

#[test]
fn a_kind_of_a_newer_version_is_passed_over() {
    let mut bytes = vec![0, 0, 0, 6, 0x7f, 0xff, 0xff, 0, 1, 2];
    bytes.extend(encoded(&Pong { number: None }.into()));
    assert_eq!(decode(&bytes), Ok(vec![Frame::Unknown { kind: 0x7fff }, Pong { number: None }.into()]));
}

#[test]
fn fields_of_a_newer_version_are_ignored() {
    let mut bytes = encoded(&Ping { number: Some(1) }.into());
    bytes.extend([0xfa, 0x3e, 3, b'n', b'e', b'w']); // field 1007, a string
    bytes[3] += 6;
    assert_eq!(decode(&bytes), Ok(vec![Ping { number: Some(1) }.into()]));
}

#[test]
fn a_frame_beyond_the_limit_is_refused_by_its_length_alone() {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX_BEFORE_AUTH);
    decoder.feed(&[0, 0, 0x10, 0x01]);
    assert_eq!(decoder.take(), Err(FrameError::TooLong { bytes: 4097, bytes_max: 4096 }));
    // What arrived with the last word before the limit is raised is judged by the raised one.
    decoder.set_bytes_max(FRAME_BYTES_MAX);
    assert_eq!(decoder.take(), Ok(None));
}

#[test]
fn heads_and_payloads_that_cannot_be_are_refused() {
    assert!(matches!(decode(&[0, 0, 0, 3, 0, 48, 0]), Err(FrameError::BadHead { .. })));
    assert!(matches!(decode(&[0, 0, 0, 4, 0, 48, 0, 1]), Err(FrameError::BadHead { .. })));
    assert!(matches!(
        decode(&[0, 0, 0, 5, 0, 48, 0, 0, 0xff]),
        Err(FrameError::Malformed { frame: "Ping", .. })
    ));
    assert!(decode(b"GET / HTTP/1.1\r\n\r\n").is_err());
}

#[test]
fn a_great_length_alone_allocates_nothing() {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    decoder.feed(&(FRAME_BYTES_MAX as u32).to_be_bytes());
    assert_eq!(decoder.take(), Ok(None));
    assert!(decoder.buffer.capacity() < 100);
}

#[test]
fn the_room_of_a_big_frame_is_given_back() {
    let data = OutputData { data: vec![7; 1 << 20], ..Default::default() };
    let frame =
        Frame::from(Answer { query_id: Some(1), body: Some(crate::message::AnswerBody::Output(data)) });
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    decoder.feed(&encoded(&frame));
    assert_eq!(decoder.take(), Ok(Some(frame)));
    decoder.feed(&encoded(&Ping { number: None }.into()));
    assert!(decoder.buffer.capacity() <= BUFFER_BYTES_KEPT);
    assert_eq!(decoder.pending_bytes(), 8);
}

proptest! {
    #[test]
    fn no_bytes_panic_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_payload_panics_a_message(kind in 0u16..60, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = (payload.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(payload);
        let _ = decode(&bytes);
    }

    #[test]
    fn however_the_stream_is_split_the_frames_are_the_same(
        numbers in proptest::collection::vec(any::<u64>(), 1..20),
        sizes in proptest::collection::vec(1usize..40, 1..60),
    ) {
        let frames: Vec<Frame> = numbers.iter().map(|n| match n % 3 {
            0 => Ping { number: Some(*n) }.into(),
            1 => Goodbye { reason: n.to_string(), stopping: n % 2 == 0 }.into(),
            _ => Frame::Unknown { kind: 0x7000 },
        }).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(encoded).collect();
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        let (mut rest, mut got, mut sizes) = (&bytes[..], Vec::new(), sizes.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            decoder.feed(now);
            while let Some(frame) = decoder.take().unwrap() {
                got.push(frame);
            }
            rest = later;
        }
        prop_assert_eq!(got, frames);
        prop_assert_eq!(decoder.pending_bytes(), 0);
    }
}
