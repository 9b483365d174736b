//! What both sides need.

use anyhow::Result;
use std::time::Duration;
use tests::{Load, Random, Site, Status, wait_until};

/// Disks filled by all tests together.
const FILLS: u64 = 24;
/// Agent and server, each on three file systems.
const TESTS: u64 = 6;
/// The size of a data root's file system.
pub(crate) const VOLUME_MIB: u64 = 96;
/// Before a disk is filled, milliseconds.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 1_000;

/// How often one test fills its disk; at least once.
pub(crate) fn rounds() -> u64 {
    let all = std::env::var("LASTWORD_TEST_FULL_DISKS").ok().and_then(|n| n.parse().ok()).unwrap_or(FILLS);
    all.div_ceil(TESTS)
}

/// Waits for load and then for a random moment.
pub(crate) fn await_moment(load: &Load, random: &mut Random) -> Result<()> {
    let runs = || Ok(!load.seen(|status| status == Status::Running).is_empty());
    wait_until("a job to run", runs)?;
    // The rhythm of the test; nothing is waited for here.
    std::thread::sleep(Duration::from_millis(PAUSE_MS_MIN + random.below(PAUSE_MS_MAX - PAUSE_MS_MIN)));
    Ok(())
}

/// Waits until all of these jobs are over.
pub(crate) fn await_ends(load: &Load, ids: impl IntoIterator<Item = u64>) -> Result<()> {
    for id in ids {
        wait_until(&format!("job {id} to be over"), || Ok(load.seen(Status::is_final).contains_key(&id)))?;
    }
    Ok(())
}

/// The number of the latest event.
pub(crate) fn last_event(site: &Site) -> Result<u64> {
    let list: api::EventList = site.client().call("GET", "/api/v1/events/list?limit=1", None)?.json()?;
    Ok(list.items.first().map_or(0, |event| event.number))
}

/// Waits for an event of that kind that says this, after the one with that number.
pub(crate) fn await_event(site: &Site, kind: &str, says: &str, after: u64) -> Result<()> {
    let path = format!("/api/v1/events/list?kind={kind}");
    wait_until(&format!("an event {kind} that says {says:?}"), || {
        let list: api::EventList = site.client().call("GET", &path, None)?.json()?;
        Ok(list.items.iter().any(|event| event.number > after && event.text.contains(says)))
    })
}
