//! Dials for ever.

use crate::{Endpoint, Link};
use protocol::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// The same failure is told again after this long.
const TELL_AGAIN_MS: u64 = 60_000;

/// A text is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{address}\" is not an address: write host:port, 192.0.2.7:7411 or [2001:db8::7]:7411")]
pub struct AddressError {
    /// The text.
    pub address: String,
}

/// Splits `host:port` or `[v6]:port`.
pub fn split_address(address: &str) -> Result<(String, u16), AddressError> {
    let error = || AddressError { address: address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or_else(error)?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').ok_or_else(error)?,
        None if host.contains(':') => return Err(error()),
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(error)?;
    if host.is_empty() {
        return Err(error());
    }
    Ok((host.to_owned(), port))
}

/// Dials for ever, with the pauses of `protocol::backoff`, looking the name up at every attempt; waits while the link that it
/// delivered lives. Ends when nobody takes `links` any more, or at once (traced) when `address` is not one.
pub async fn keep_dialled(
    endpoint: Arc<Endpoint>,
    address: String,
    expected_peer: Option<String>,
    links: mpsc::Sender<Link>,
) {
    let (host, port) = match split_address(&address) {
        Ok(parts) => parts,
        Err(error) => return tracing::error!("{error}; it is not dialled"),
    };
    let (mut backoff, mut teller, began) = (Backoff::new(), Teller::default(), Instant::now());
    let tell = |teller: &mut Teller, failure: String| {
        if let Some(line) = teller.on_failure(millis(began.elapsed()), failure) {
            tracing::warn!(%address, "{line}");
        }
    };
    while !links.is_closed() {
        let lived_ms = match endpoint.dial(&host, port, expected_peer.as_deref()).await {
            Ok(link) => {
                teller = Teller::default();
                let (sender, from) = (link.sender.clone(), Instant::now());
                if links.send(link).await.is_err() {
                    return;
                }
                sender.closed().await;
                millis(from.elapsed()).max(1)
            }
            Err(error) => {
                tell(&mut teller, format!("cannot link up: {error}"));
                0
            }
        };
        let pause = Duration::from_millis(backoff.on_over(lived_ms, random_word()));
        tokio::select! {
            () = sleep(pause) => {}
            () = links.closed() => return,
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// For jitter only: without randomness the pauses are merely all alike.
fn random_word() -> u64 {
    let mut bytes = [0; 8];
    let _without = getrandom::fill(&mut bytes).is_err();
    u64::from_le_bytes(bytes)
}

/// Tells the first failure, each that differs from the one before, and the same one once a minute.
#[derive(Debug, Default)]
struct Teller {
    told: Option<(String, u64)>,
    untold: u64,
}

impl Teller {
    fn on_failure(&mut self, now_ms: u64, text: String) -> Option<String> {
        let same =
            self.told.as_ref().is_some_and(|(told, at_ms)| *told == text && now_ms < at_ms + TELL_AGAIN_MS);
        if same {
            self.untold += 1;
            return None;
        }
        let line = match std::mem::take(&mut self.untold) {
            0 => text.clone(),
            untold => format!("{text} (and {untold} failures like the one before were not told)"),
        };
        self.told = Some((text, now_ms));
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_at_the_port() {
        assert_eq!(split_address("server.example:7411"), Ok(("server.example".into(), 7411)));
        assert_eq!(split_address("[::1]:7411"), Ok(("::1".into(), 7411)));
        for text in ["", "host", "host:", ":7411", "host:0", "host:70000", "::1:7411", "[::1:7411", "[]:7411"]
        {
            assert!(split_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_same_failure_is_told_once_a_minute_and_a_new_one_at_once() {
        let mut teller = Teller::default();
        assert_eq!(teller.on_failure(0, "a".into()).as_deref(), Some("a"));
        assert_eq!(teller.on_failure(1, "a".into()), None);
        assert_eq!(teller.on_failure(2, "a".into()), None);
        let line = teller.on_failure(3, "b".into()).unwrap();
        assert!(line.starts_with('b') && line.contains("2 failures"), "{line}");
        assert_eq!(teller.on_failure(4, "b".into()), None);
        assert!(teller.on_failure(60_003, "b".into()).is_some());
    }
}
