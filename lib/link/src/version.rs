//! Which protocol versions this process speaks.

use protocol::handshake::Versions;

/// Those of this program. A debug build speaks down to what `LASTWORD_PROTOCOL_MAX` says, so that a test can play its older self; a number
/// out of the range is not looked at. Release builds do not read it.
pub(crate) fn ours() -> Versions {
    capped(Versions::OURS, told_max())
}

#[cfg(debug_assertions)]
fn told_max() -> Option<u32> {
    std::env::var("LASTWORD_PROTOCOL_MAX").ok()?.parse().ok()
}

#[cfg(not(debug_assertions))]
fn told_max() -> Option<u32> {
    None
}

fn capped(ours: Versions, max: Option<u32>) -> Versions {
    let max = max.filter(|max| (ours.min..=ours.max).contains(max));
    Versions { max: max.unwrap_or(ours.max), ..ours }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_speaks_down_within_its_range_only() {
        let ours = Versions { min: 2, max: 4 };
        let max = |told| capped(ours, told).max;
        assert_eq!([None, Some(3), Some(2), Some(1), Some(5)].map(max), [4, 3, 2, 4, 4]);
    }
}
