//! Waiting for a condition.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// The longest that anything is waited for: far more than it takes, for a machine that is busy with other tests.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(15);

/// Waits until there is a value.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", WAIT_MAX.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Waits until it is so.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, || Ok(condition()?.then_some(())))
}
