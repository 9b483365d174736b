//! A look at an encoded message without decoding it: nothing is allocated, so it can be done in a process that was just forked.

use prost::encoding::{WireType, decode_key, decode_varint};

/// [`FactBody::Started`](crate::message::FactBody) and the field of its process id.
const STARTED_TAG: u32 = 3;
const PID_TAG: u32 = 1;

/// The process that an encoded fact announces, if it is a STARTED.
pub fn started_pid(fact: &[u8]) -> Option<u32> {
    let Field::Bytes(started) = field(fact, STARTED_TAG)? else { return None };
    let Field::Number(pid) = field(started, PID_TAG)? else { return None };
    u32::try_from(pid).ok()
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The last field of that number, as a decoder takes it.
fn field(mut message: &[u8], wanted: u32) -> Option<Field<'_>> {
    let mut found = None;
    while !message.is_empty() {
        let (tag, wire) = decode_key(&mut message).ok()?;
        let value = match wire {
            WireType::Varint => Field::Number(decode_varint(&mut message).ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            // None of our messages has these.
            WireType::SixtyFourBit | WireType::ThirtyTwoBit | WireType::StartGroup | WireType::EndGroup => {
                return None;
            }
        };
        if tag == wanted {
            found = Some(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Ended, Fact, FactBody, Started};
    use prost::Message;

    #[test]
    fn the_process_of_a_started_is_seen_as_a_decoder_sees_it() {
        for pid in [1, 127, 128, 300, 4_194_304, u32::MAX] {
            let started = Started {
                pid: Some(pid),
                start_ticks: Some(u64::MAX),
                boot_id: Some(vec![9; 16]),
                cgroup: Some("/a/b".to_owned()),
                ..Started::default()
            };
            let bytes = Fact::new(1_790_000_000_000, FactBody::Started(started)).encode_to_vec();
            assert_eq!(started_pid(&bytes), Some(pid));
            for cut in 0..bytes.len() {
                assert_eq!(started_pid(&bytes[..cut]), None, "{cut} bytes of it");
            }
        }
    }

    #[test]
    fn other_facts_and_other_bytes_announce_nobody() {
        let ended = Fact::new(1, FactBody::Ended(Ended { kind: Some(1), ..Ended::default() }));
        assert_eq!(started_pid(&ended.encode_to_vec()), None);
        let none = Fact::new(1, FactBody::Started(Started::default()));
        assert_eq!(started_pid(&none.encode_to_vec()), None);
        assert_eq!(started_pid(&[]), None);
        assert_eq!(started_pid(&[0xff; 40]), None);
        assert_eq!(started_pid(&[0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f]), None, "longer than it is");
    }
}
