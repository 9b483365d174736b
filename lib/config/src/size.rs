//! Amounts of bytes as people write them: `16M`, `1G`, `500000`.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// An amount of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    bytes: u64,
}

impl Size {
    /// From bytes.
    pub const fn from_bytes(bytes: u64) -> Size {
        Size { bytes }
    }

    /// In bytes.
    pub const fn as_bytes(self) -> u64 {
        self.bytes
    }
}

/// The text is no amount of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not an amount of bytes; write it like \"16M\", \"1G\" or \"500000\" (units K, M, G, T, each 1024 of the one before)"
)]
pub struct ParseSizeError {
    /// The whole text.
    pub text: String,
}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(given: &str) -> Result<Self, ParseSizeError> {
        let size = job::Size::read(given.trim()).map(|size| Size::from_bytes(size.0));
        size.ok_or_else(|| ParseSizeError { text: given.to_owned() })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        job::Size(self.bytes).fmt(f)
    }
}

/// As people write it.
impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of bytes in quotes like \"16M\" or \"1G\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them_and_write_as_they_are_read() {
        for (text, bytes) in [("16M", 16 << 20), ("1G", 1 << 30), ("1K", 1024), ("1000", 1000), ("0", 0)] {
            assert_eq!(text.parse(), Ok(Size::from_bytes(bytes)));
            assert_eq!(Size::from_bytes(bytes).to_string(), text);
        }
        for wrong in ["", "M", "1.5G", "-1", "16MB", "99999999999T"] {
            assert!(wrong.parse::<Size>().unwrap_err().to_string().contains("\"16M\""), "{wrong}");
        }
    }
}
