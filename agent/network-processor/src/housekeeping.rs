//! What is done by the clock: retries, adopted runs, room on the disk, retention, secrets.

use crate::agent::Agent;
use crate::delivery::Delivered;
use crate::event::Event;
use os::clock;
use protocol::Frame;
use protocol::convert;
use protocol::message::{Facts, RunFact};
use spool::Shelf;
use std::time::Duration;

/// The tick, milliseconds.
pub(crate) const TICK_MS: u64 = 250;
/// Between two slow rounds, milliseconds.
const SLOW_ROUND_MS: u64 = 2_000;
/// Links wait this long for the directories of the last time to be read, milliseconds since the start.
pub(crate) const SCAN_MS_MAX: u64 = 2_000;
/// Below this many free bytes no new run is taken.
const FREE_BYTES_MIN: u64 = 2 << 20;
/// Below this many free inodes no new run is taken.
const FREE_INODES_MIN: u64 = 64;
/// Settled runs that are looked at in one round of retention.
const RETENTION_PER_ROUND: usize = 2_000;

impl Agent {
    pub(crate) fn on_tick(&mut self) {
        let now_ms = clock::boottime_ms();
        if self.has_early() && now_ms >= self.begun_ms + SCAN_MS_MAX {
            tracing::warn!(
                unread = self.unread,
                "some directories are slow to read; the server is greeted all the same"
            );
            self.greet_early();
        }
        self.retry_stops();
        self.tick_adopted();
        if now_ms >= self.housekept_ms + SLOW_ROUND_MS {
            self.housekept_ms = now_ms;
            self.retry_moves_and_reads();
            self.watch_disk();
            self.save_identity();
            self.expire_settled();
        }
    }

    fn watch_disk(&mut self) {
        match os::disk::file_system(self.disk.root.path()) {
            Ok(fs) if fs.free_bytes < FREE_BYTES_MIN => {
                self.set_refusing(format!("disk full: {} KiB are free in the data root", fs.free_bytes >> 10))
            }
            Ok(fs) if fs.free_inodes < FREE_INODES_MIN => {
                self.set_refusing(format!("disk full: {} inodes are free in the data root", fs.free_inodes))
            }
            Ok(_) => self.set_refusing(String::new()),
            Err(e) => tracing::warn!("the data root's file system cannot be asked: {e}"),
        }
    }

    fn save_identity(&mut self) {
        if self.identity_dirty {
            match self.identity.save() {
                Ok(()) => self.identity_dirty = false,
                Err(e) => tracing::warn!("the identity file could not be written: {e}"),
            }
        }
    }

    /// Removes settled runs that are past their retention, oldest first.
    fn expire_settled(&mut self) {
        let now_ms = u64::try_from(clock::wall_ms()).unwrap_or(0);
        let oldest_ms = now_ms.saturating_sub(self.config.settled_retention.as_ms());
        let root = self.disk.root.clone();
        tokio::task::spawn_blocking(move || {
            let settled = root.list(Shelf::Settled).unwrap_or_default();
            for run_id in
                settled.into_iter().take_while(|id| id.wall_ms() < oldest_ms).take(RETENTION_PER_ROUND)
            {
                if let Err(e) = os::disk::remove_tree(root.run(Shelf::Settled, run_id).path()) {
                    tracing::warn!(run = %run_id, "past its retention, but it cannot be removed: {e}");
                }
            }
        });
    }

    /// Sends every settled record again, away from the event loop.
    pub(crate) fn resend_settled(&mut self) {
        let disk = self.disk.clone();
        let Some(link) = self.sessions.active_link() else { return };
        tokio::spawn(async move {
            let root = disk.root.clone();
            let all = tokio::task::spawn_blocking(move || root.list(Shelf::Settled).unwrap_or_default())
                .await
                .unwrap_or_default();
            for chunk in all.chunks(256) {
                let (disk, chunk) = (disk.clone(), chunk.to_vec());
                let read = tokio::task::spawn_blocking(move || {
                    let read = chunk.into_iter().filter_map(|run_id| {
                        let (ledger, _) = disk.read_at(&disk.root.run(Shelf::Settled, run_id)).ok()?;
                        Some(Delivered { run_id, messages: ledger.messages })
                    });
                    read.collect::<Vec<_>>()
                });
                let facts = read.await.unwrap_or_default().into_iter().flat_map(|delivered| {
                    let run = convert::run_id_field(delivered.run_id);
                    delivered.messages.into_iter().map(move |m| RunFact {
                        run_id: run.clone(),
                        seq: Some(m.seq),
                        fact: m.bytes,
                    })
                });
                if link.send(Frame::Facts(Facts { facts: facts.collect() })).await.is_err() {
                    return; // the next connection begins anew
                }
            }
        });
    }

    /// SIGHUP: the secrets are read anew; other keys need a restart of the agent, which no running job notices.
    pub(crate) fn on_reload(&mut self) {
        match self.secrets.reload() {
            Ok(()) => tracing::info!(
                "SIGHUP: the secrets were read anew; changes of other keys take effect when the agent is restarted"
            ),
            Err(e) => tracing::error!("SIGHUP: the secrets stay as they were: {e}"),
        }
    }
}

/// Ticks for ever.
pub(crate) async fn tick(events: tokio::sync::mpsc::UnboundedSender<Event>) {
    let mut interval = tokio::time::interval(Duration::from_millis(TICK_MS));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if events.send(Event::Tick).is_err() {
            return;
        }
    }
}
