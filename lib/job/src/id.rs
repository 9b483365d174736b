//! Identifiers: of a job (a number for people), of a run (UUIDv7, RFC 9562), of an agent and of a boot.

use std::fmt;
use std::str::FromStr;

/// The number of a job, for people: `1042`. Given by the server, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One attempt at a job: a UUIDv7. Never reused, also not after a database went back in time,
/// which is why it is not a number from a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId([u8; 16]);

/// The identity that an agent gave its data root at the first start: 16 random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(pub [u8; 16]);

/// The kernel's `boot_id`: changes with every boot of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub [u8; 16]);

/// A text or a byte string is not an identifier of that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    /// What was expected, for people.
    pub expected: &'static str,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not {}", self.expected)
    }
}

impl std::error::Error for ParseIdError {}

impl RunId {
    /// Builds the UUIDv7 of `wall_ms` (milliseconds since 1970, 48 bits are used) with 74 random bits from `random`.
    pub fn new(wall_ms: u64, random: u128) -> Self {
        let time = u128::from(wall_ms & 0xffff_ffff_ffff) << 80;
        let rand_a = (random >> 62 & 0xfff) << 64;
        let rand_b = random & 0x3fff_ffff_ffff_ffff;
        RunId((time | 0x7 << 76 | rand_a | 0b10 << 62 | rand_b).to_be_bytes())
    }

    /// Takes 16 bytes as they stand on disk or on the wire; refuses what is not a UUIDv7.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseIdError> {
        let bytes: [u8; 16] = bytes.try_into().map_err(|_| EXPECTED_RUN)?;
        if bytes[6] >> 4 != 7 || bytes[8] >> 6 != 0b10 {
            return Err(EXPECTED_RUN);
        }
        Ok(RunId(bytes))
    }

    /// The 16 bytes, big-endian as RFC 9562 has them.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The wall clock at the moment of its making, milliseconds since 1970.
    pub fn wall_ms(&self) -> u64 {
        u64::from_be_bytes([0, 0, self.0[0], self.0[1], self.0[2], self.0[3], self.0[4], self.0[5]])
    }
}

const EXPECTED_RUN: ParseIdError = ParseIdError { expected: "a run id (UUIDv7)" };
const EXPECTED_HEX: ParseIdError = ParseIdError { expected: "an id of 32 hexadecimal digits" };

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(&self.0, f)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(&self.0, f)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_uuid(&self.0, f)
    }
}

impl FromStr for RunId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        RunId::from_bytes(&parse_uuid(text).ok_or(EXPECTED_RUN)?)
    }
}

impl FromStr for AgentId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_uuid(text).map(AgentId).ok_or(EXPECTED_HEX)
    }
}

impl FromStr for BootId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_uuid(text).map(BootId).ok_or(EXPECTED_HEX)
    }
}

impl TryFrom<&[u8]> for AgentId {
    type Error = ParseIdError;
    fn try_from(bytes: &[u8]) -> Result<Self, ParseIdError> {
        bytes.try_into().map(AgentId).map_err(|_| EXPECTED_HEX)
    }
}

impl TryFrom<&[u8]> for BootId {
    type Error = ParseIdError;
    fn try_from(bytes: &[u8]) -> Result<Self, ParseIdError> {
        bytes.try_into().map(BootId).map_err(|_| EXPECTED_HEX)
    }
}

fn write_uuid(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits = text.bytes().filter(|b| *b != b'-');
    let mut bytes = [0u8; 16];
    for byte in &mut bytes {
        let high = (digits.next()? as char).to_digit(16)?;
        let low = (digits.next()? as char).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

/// Makes run ids: xoshiro256++ (Blackman and Vigna, 2019) seeded once with 32 random bytes by the caller, so that
/// the engine stays pure and a simulation can repeat it.
#[derive(Clone, Debug)]
pub struct RunIds {
    state: [u64; 4],
    /// No id says an earlier time, milliseconds since 1970.
    latest_ms: u64,
}

impl RunIds {
    /// `seed`: 32 bytes from the operating system's random number generator (in a simulation: from its seed).
    pub fn new(seed: [u8; 32]) -> Self {
        let mut state = [0u64; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |acc, b| acc << 8 | u64::from(*b));
        }
        if state == [0; 4] {
            state[0] = 0x9e37_79b9_7f4a_7c15; // the generator must not start from zero
        }
        RunIds { state, latest_ms: 0 }
    }

    /// Goes on behind this id, which an earlier generator made.
    pub fn go_on_after(&mut self, latest: RunId) {
        self.latest_ms = self.latest_ms.max(latest.wall_ms());
    }

    /// The next id; `wall_ms` milliseconds since 1970. If the clock was set back the id is a millisecond later than the latest one: an agent refuses
    /// runs that are no younger than one that it has removed, and must not do so for as long as a clock was wrong (RFC 9562, section 6.2).
    pub fn next(&mut self, wall_ms: u64) -> RunId {
        self.latest_ms = if wall_ms < self.latest_ms { self.latest_ms.saturating_add(1) } else { wall_ms };
        RunId::new(self.latest_ms, u128::from(self.word()) << 64 | u128::from(self.word()))
    }

    fn word(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_survives_text_and_bytes() {
        let id = RunId::new(1_763_776_000_123, u128::MAX);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(RunId::from_bytes(id.as_bytes()), Ok(id));
        assert_eq!(id.wall_ms(), 1_763_776_000_123);
        assert_eq!(id.to_string().as_bytes()[14], b'7');
    }

    #[test]
    fn other_uuids_and_other_lengths_are_refused() {
        assert!("550e8400-e29b-41d4-a716-446655440000".parse::<RunId>().is_err());
        assert!(RunId::from_bytes(&[0; 15]).is_err());
        assert!("".parse::<RunId>().is_err());
        assert!("ü".repeat(16).parse::<RunId>().is_err());
    }

    #[test]
    fn ids_of_one_generator_differ_and_sort_by_time() {
        let mut ids = RunIds::new([7; 32]);
        let made: Vec<_> = (0..10_000u64).map(|ms| ids.next(ms)).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(RunIds::new([7; 32]).next(0), made[0]);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_older_ids() {
        let mut ids = RunIds::new([7; 32]);
        let before = ids.next(5_000);
        let (one, two) = (ids.next(1_000), ids.next(1_000));
        assert!(before.wall_ms() < one.wall_ms() && one.wall_ms() < two.wall_ms());
        let mut restarted = RunIds::new([8; 32]);
        restarted.go_on_after(two);
        assert!(restarted.next(1_000).wall_ms() > two.wall_ms());
        assert_eq!(restarted.next(9_000).wall_ms(), 9_000, "the clock is right again");
    }
}
