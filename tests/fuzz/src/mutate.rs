//! Inputs near to given ones, repeatable by their seed.

/// Numbers at which lengths and counters turn over.
const TURNING: [u64; 9] = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Makes inputs. SplitMix64 (Steele, Lea and Flood, 2014) chooses.
pub struct Mutator(u64);

impl Mutator {
    /// From a seed.
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.word() % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// One to eight changes of an input of the corpus, or bytes from nowhere.
    pub fn input(&mut self, corpus: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
        let mut bytes = corpus.get(self.below(corpus.len())).cloned().unwrap_or_default();
        for _ in 0..=self.below(8) {
            let other = corpus.get(self.below(corpus.len())).map_or(&[][..], Vec::as_slice);
            self.change(&mut bytes, other);
        }
        bytes.truncate(bytes_max);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let length = self.below(16) + 1;
        let end = (at + length).min(bytes.len());
        match self.below(8) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (length % 8)),
            1 => {
                bytes.drain(at..end);
            }
            2 => {
                let new: Vec<u8> = (0..length).map(|_| self.word().to_le_bytes()[0]).collect();
                bytes.splice(at..at, new);
            }
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let number = TURNING[self.below(TURNING.len())].to_le_bytes();
                let width = [1, 2, 4, 8][self.below(4)];
                let big_endian = self.below(2) == 0;
                let mut number = number[..width].to_vec();
                if big_endian {
                    number.reverse();
                }
                let end = (at + width).min(bytes.len());
                bytes.splice(at..end, number);
            }
            5 => bytes.truncate(at),
            6 => {
                let from = self.below(other.len() + 1);
                let to = (from + self.below(256)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            _ => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[self.below(other.len() + 1)..]);
            }
        }
    }
}
