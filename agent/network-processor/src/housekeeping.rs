//! What is done by the clock: retries, adopted runs, room on the disk, retention, secrets.

use crate::agent::Agent;
use crate::delivery::Delivered;
use crate::event::Event;
use job::RunId;
use os::clock;
use protocol::Frame;
use protocol::convert;
use protocol::message::{Facts, RunFact};
use spool::Shelf;
use std::os::unix::fs::MetadataExt;
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
const RETENTION_PER_ROUND: usize = 5_000;
/// Between two rounds of retention, milliseconds.
const RETENTION_ROUND_MS: u64 = 60_000;
/// The job-processors' trace file is moved aside beyond this, bytes.
const JOB_PROCESSOR_TRACE_BYTES_MAX: u64 = 16 << 20;

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
        self.retry_orders();
        self.tick_adopted();
        if now_ms >= self.housekept_ms + SLOW_ROUND_MS {
            self.housekept_ms = now_ms;
            self.retry_moves_and_reads();
            self.watch_disk();
            self.save_identity();
        }
        if now_ms >= self.swept_ms + RETENTION_ROUND_MS {
            self.swept_ms = now_ms;
            self.look_for_expired();
            self.rotate_job_processors_trace();
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

    /// Looks for settled runs that are past their retention, by when they were settled.
    fn look_for_expired(&mut self) {
        let retention = self.config.settled_retention.std();
        self.disk.spawn(move |disk| {
            let settled = disk.root.list(Shelf::Settled).unwrap_or_default();
            let is_past = |run_id: &RunId| {
                let path = disk.root.run(Shelf::Settled, *run_id).path().to_owned();
                let moved = std::fs::metadata(path).map(|m| m.ctime()).unwrap_or(i64::MAX);
                let age_s = (clock::wall_ms() / 1000).saturating_sub(moved);
                u64::try_from(age_s).is_ok_and(|age| age >= retention.as_secs())
            };
            Event::Expiring(settled.into_iter().take(RETENTION_PER_ROUND).filter(is_past).collect())
        });
    }

    /// Remembers durably up to when nobody can tell any more whether a run ran here, and only then removes them.
    pub(crate) fn on_expiring(&mut self, runs: Vec<RunId>) {
        let Some(latest) = runs.iter().map(RunId::wall_ms).max() else { return };
        let before = self.identity.expired_ms;
        self.identity.expired_ms = before.max(latest);
        if let Err(e) = self.identity.save() {
            self.identity.expired_ms = before;
            return tracing::warn!(
                "settled runs stay past their retention: the identity file could not be written: {e}"
            );
        }
        let (disk, launcher) = (self.disk.clone(), self.launcher.clone());
        tokio::task::spawn_blocking(move || {
            for run_id in runs {
                if let Err(e) = launcher.remove(&disk, &disk.root.run(Shelf::Settled, run_id)) {
                    tracing::warn!(run = %run_id, "past its retention, but it cannot be removed: {e}");
                }
            }
        });
    }

    /// The job-processors' own complaints are appended by many processes, so their file is moved aside here.
    fn rotate_job_processors_trace(&mut self) {
        let path = self.disk.root.trace_dir().join("job-processor.log");
        tokio::task::spawn_blocking(move || {
            if std::fs::metadata(&path).is_ok_and(|m| m.len() > JOB_PROCESSOR_TRACE_BYTES_MAX) {
                let _ = std::fs::rename(&path, path.with_extension("log.1")); // best effort, as all tracing
            }
        });
    }

    /// Sends every settled record again, away from the event loop.
    pub(crate) fn resend_settled(&mut self) {
        let (disk, events) = (self.disk.clone(), self.events.clone());
        let Some(link) = self.sessions.active_link().filter(|_| !self.resending) else { return };
        self.resending = true;
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
                    let _ = events.send(Event::Resent(false)); // the next connection begins anew
                    return;
                }
            }
            let _ = events.send(Event::Resent(true));
        });
    }

    pub(crate) fn on_resent(&mut self, complete: bool) {
        self.resending = false;
        if complete {
            // What the server acknowledges from now on counts; until then it is one that never acknowledged anything.
            self.identity.acked = ([0; 16], 0);
            self.identity_dirty = true;
            self.say_caught_up();
        } else {
            self.resend_settled(); // a newer connection may have come while this one was ending
        }
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
