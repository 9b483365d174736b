//! Amounts of bytes as people write them: `16M`, `1G`, `500000`; each unit is 1024 of the one before. The one place where they are read and written.

use std::fmt;

/// The units, largest first, and the powers of two that they are.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// An amount of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    /// Reads `500000`, `16M`, `16m`; `None` if it is no amount of bytes, or none that fits.
    pub fn read(text: &str) -> Option<Size> {
        let unit = text.chars().last().and_then(|last| {
            UNITS.into_iter().find(|(unit, _)| *unit == last.to_ascii_uppercase()).map(|(_, shift)| shift)
        });
        let digits = if unit.is_some() { &text[..text.len() - 1] } else { text };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse::<u64>().ok()?.checked_mul(1 << unit.unwrap_or(0)).map(Size)
    }
}

/// As it is read, in the largest unit that is exact.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.into_iter().find(|(_, shift)| self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift)) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them_and_write_as_they_are_read() {
        for (text, bytes) in
            [("16M", 16 << 20), ("1G", 1 << 30), ("1K", 1024), ("3T", 3 << 40), ("1000", 1000), ("0", 0)]
        {
            assert_eq!(Size::read(text), Some(Size(bytes)));
            assert_eq!(Size::read(&text.to_lowercase()), Some(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        for wrong in ["", "M", "1.5G", "-1", "+1", "16MB", "16 M", "99999999999T", "1é"] {
            assert_eq!(Size::read(wrong), None, "{wrong}");
        }
    }
}
