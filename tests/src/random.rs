//! Random numbers from a seed that a failure prints and `LASTWORD_TEST_SEED` repeats.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// The seed of this test process.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("LASTWORD_TEST_SEED").ok().and_then(|text| text.parse().ok());
        given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::from(now.subsec_nanos()) ^ now.as_secs() << 20 ^ u64::from(std::process::id()) << 40
        })
    })
}

/// SplitMix64 (Steele, Lea and Flood, 2014): enough to vary a test.
pub struct Random(u64);

impl Random {
    /// From the seed of this test process.
    pub fn from_seed() -> Random {
        Random(seed())
    }

    /// One of several that differ.
    pub fn nth(number: u64) -> Random {
        Random(seed().wrapping_add(number.wrapping_mul(0xd1b5_4a32_d192_ed03)))
    }

    /// The next number.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.word() % end
    }

    /// One of them, if there is one.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let end = u64::try_from(items.len()).ok().filter(|end| *end > 0)?;
        items.get(usize::try_from(self.below(end)).ok()?)
    }
}
