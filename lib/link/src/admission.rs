//! Who may try: an address that failed often within a short time is closed at once for a while.
//!
//! Loopback is counted too, but generously: whoever annoys from there shares the address with correct peers, which must
//! get in between.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// Failures are counted over this span.
const WINDOW_MS: u64 = 10_000;
/// Failures of one address that are told one by one within that span.
const TOLD_MAX: u32 = 10;
/// That an address is not allowed is told once in this span.
const NOT_ALLOWED_TOLD_MS: u64 = 60_000;
/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 4096;

/// How many failures are too many, and for how long the address is closed out then.
struct Patience {
    failures_max: u32,
    pause_ms: u64,
}

const PATIENCE: Patience = Patience { failures_max: 10, pause_ms: 10_000 };
const PATIENCE_LOOPBACK: Patience = Patience { failures_max: 200, pause_ms: 500 };

/// The book of failures.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    addresses: HashMap<IpAddr, Record>,
    /// Addresses that are not allowed, with when that was told last.
    not_allowed: HashMap<IpAddr, u64>,
}

#[derive(Debug)]
struct Record {
    window_began_ms: u64,
    failures: u32,
    closed_until_ms: u64,
}

/// What follows from a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether it is worth a line of its own: a flood is not told drop by drop.
    pub(crate) tell: bool,
    /// That was too much: the address is closed out for so many milliseconds.
    pub(crate) pause_ms: Option<u64>,
}

impl Admission {
    /// Whether a connection from there is taken now.
    pub(crate) fn admits(&self, now_ms: u64, address: IpAddr) -> bool {
        self.addresses.get(&key(address)).is_none_or(|record| now_ms >= record.closed_until_ms)
    }

    /// An address came that is not allowed: whether that is worth a line. When too many different ones come, the rest is not told.
    pub(crate) fn on_not_allowed(&mut self, now_ms: u64, address: IpAddr) -> bool {
        let key = key(address);
        if self.not_allowed.len() >= ADDRESSES_MAX {
            self.not_allowed.retain(|_, told_ms| now_ms < *told_ms + NOT_ALLOWED_TOLD_MS);
        }
        let told = self.not_allowed.get(&key).is_some_and(|told_ms| now_ms < *told_ms + NOT_ALLOWED_TOLD_MS);
        let full = self.not_allowed.len() >= ADDRESSES_MAX && !self.not_allowed.contains_key(&key);
        if told || full {
            return false;
        }
        self.not_allowed.insert(key, now_ms);
        true
    }

    /// A connection from there failed.
    pub(crate) fn on_failure(&mut self, now_ms: u64, address: IpAddr) -> Verdict {
        let patience = if address.to_canonical().is_loopback() { PATIENCE_LOOPBACK } else { PATIENCE };
        if self.addresses.len() >= ADDRESSES_MAX {
            self.addresses.retain(|_, record| !record.is_stale(now_ms));
        }
        if self.addresses.len() >= ADDRESSES_MAX {
            self.addresses.clear(); // an attack from everywhere: counting by address helps no more
        }
        let record = self.addresses.entry(key(address)).or_insert(Record {
            window_began_ms: now_ms,
            failures: 0,
            closed_until_ms: 0,
        });
        if record.is_stale(now_ms) {
            (record.window_began_ms, record.failures) = (now_ms, 0);
        }
        record.failures += 1;
        let tell = record.failures <= TOLD_MAX;
        if record.failures <= patience.failures_max || now_ms < record.closed_until_ms {
            return Verdict { tell, pause_ms: None };
        }
        *record =
            Record { window_began_ms: now_ms, failures: 0, closed_until_ms: now_ms + patience.pause_ms };
        Verdict { tell, pause_ms: Some(patience.pause_ms) }
    }
}

impl Record {
    fn is_stale(&self, now_ms: u64) -> bool {
        now_ms >= self.closed_until_ms && now_ms >= self.window_began_ms + WINDOW_MS
    }
}

/// One household has a /64 of IPv6.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_fails_often_is_closed_out_for_a_while_and_others_are_not() {
        let mut admission = Admission::default();
        let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let told = Verdict { tell: true, pause_ms: None };
        assert!((0..10).all(|ms| admission.on_failure(ms, bad) == told && admission.admits(ms, bad)));
        assert_eq!(admission.on_failure(10, bad), Verdict { tell: false, pause_ms: Some(10_000) });
        assert!(!admission.admits(11, bad) && admission.admits(11, good));
        assert!(admission.admits(10_010, bad));
    }

    #[test]
    fn rare_failures_never_close_an_address_out() {
        let mut admission = Admission::default();
        assert!((0..1000).all(|n| admission.on_failure(n * 2_000, ip("192.0.2.1")).pause_ms.is_none()));
    }

    #[test]
    fn an_address_that_is_not_allowed_is_told_once_a_minute_and_an_attack_from_everywhere_fills_no_trace() {
        let mut admission = Admission::default();
        let address = ip("192.0.2.1");
        assert!(admission.on_not_allowed(0, address));
        assert!((1..60_000).step_by(500).all(|ms| !admission.on_not_allowed(ms, address)));
        assert!(admission.on_not_allowed(60_000, address));
        let told =
            (0..100_000u32).filter(|n| admission.on_not_allowed(60_001, IpAddr::V4((*n).into()))).count();
        assert!(told < ADDRESSES_MAX && admission.not_allowed.len() <= ADDRESSES_MAX, "{told}");
    }

    #[test]
    fn loopback_gets_in_again_soon() {
        let mut admission = Admission::default();
        let flooded = (0..=200).find_map(|ms| admission.on_failure(ms, ip("127.0.0.1")).pause_ms);
        assert_eq!(flooded, Some(500));
        assert!(!admission.admits(201, ip("127.0.0.1")) && admission.admits(701, ip("127.0.0.1")));
    }

    #[test]
    fn the_book_has_a_limit_and_a_household_one_entry() {
        let mut admission = Admission::default();
        (0..100_000).for_each(|n: u32| {
            admission.on_failure(0, IpAddr::V4(n.into()));
        });
        assert!(admission.addresses.len() <= ADDRESSES_MAX);
        (0..=10).for_each(|n| {
            admission.on_failure(0, ip(&format!("2001:db8::{n}")));
        });
        assert!(!admission.admits(1, ip("2001:db8::ffff")));
    }
}
