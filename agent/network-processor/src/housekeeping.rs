//! What is done by the clock: retries, adopted runs, room on the disk, retention, secrets.

use crate::agent::Agent;
use crate::event::Event;
use crate::groups;
use crate::retention::{Done, Hands, KEPT_MS_FULL, Policy};
use crate::room::{self, Room};
use config::{AgentConfig, Effect};
use os::clock;
use spool::RunDir;
use std::io;
use std::time::Duration;

/// The tick, milliseconds.
pub(crate) const TICK_MS: u64 = 250;
/// Between two slow rounds, milliseconds.
const SLOW_ROUND_MS: u64 = 2_000;
/// Links wait this long for the directories of the last time to be read, milliseconds since the start.
pub(crate) const SCAN_MS_MAX: u64 = 2_000;
/// Between two rounds of retention, milliseconds; sooner if there is more to do or too little room.
const RETENTION_ROUND_MS: u64 = 60_000;
/// The job-processors' trace file is moved aside beyond this, bytes.
const JOB_PROCESSOR_TRACE_BYTES_MAX: u64 = 16 << 20;

/// What the rounds of retention and the looks at the disk have to know of each other.
#[derive(Debug, Default)]
pub(crate) struct Tidying {
    /// A look at the disk is under way: one that hangs is not followed by others.
    looking: bool,
    /// The secret files are being looked at.
    refreshing: bool,
    /// What was acknowledged is being written down.
    saving: bool,
    /// A round of retention is under way.
    sweeping: bool,
    /// The last one left something to do.
    more: bool,
    /// The disk is full.
    is_full: bool,
    /// There is less room than is to be free.
    is_short: bool,
}

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
        self.settle_due(true);
        if now_ms >= self.housekept_ms + SLOW_ROUND_MS {
            self.housekept_ms = now_ms;
            self.retry_files();
            self.retry_leftovers();
            self.retry_moves_and_reads();
            self.reap_orphans();
            self.look_for_monitor();
            self.watch_disk();
            self.watch_secrets();
            self.save_identity();
            if self.tidying.is_short || now_ms >= self.swept_ms + RETENTION_ROUND_MS {
                self.swept_ms = now_ms;
                self.sweep(true);
                self.rotate_job_processors_trace();
            }
        }
        if self.tidying.more {
            self.sweep(false); // the last round was stopped by its time, not by its end
        }
    }

    fn watch_disk(&mut self) {
        if !std::mem::replace(&mut self.tidying.looking, true) {
            let ballast = self.config.retention.ballast.as_bytes();
            self.disk.spawn(move |disk| Event::Room(room::look(disk.root.path(), ballast)));
        }
    }

    pub(crate) fn on_room(&mut self, room: io::Result<Room>) {
        self.tidying.looking = false;
        match room {
            Ok(Room { refusing, free_bytes, is_full }) => {
                self.tidying.is_full = is_full;
                self.tidying.is_short =
                    is_full || free_bytes < self.config.retention.free_bytes_min.as_bytes();
                self.set_refusing(refusing);
            }
            Err(e) => tracing::warn!("the room on the data root's disk cannot be looked after: {e}"),
        }
    }

    fn watch_secrets(&mut self) {
        if !std::mem::replace(&mut self.tidying.refreshing, true) {
            let (secrets, events) = (self.secrets.clone(), self.events.clone());
            tokio::task::spawn_blocking(move || {
                secrets.refresh();
                let _ = events.send(Event::SecretsSeen); // the loop is gone only when the process goes
            });
        }
    }

    pub(crate) fn on_secrets_seen(&mut self) {
        self.tidying.refreshing = false;
    }

    fn save_identity(&mut self) {
        if self.identity.dirty && !self.tidying.saving {
            (self.identity.dirty, self.tidying.saving) = (false, true);
            let (file, acked) = (self.identity.file.clone(), self.identity.acked);
            self.disk.spawn(move |_| Event::Saved(file.save_acked(acked)));
        }
    }

    pub(crate) fn on_saved(&mut self, saved: io::Result<()>) {
        self.tidying.saving = false;
        if let Err(e) = saved {
            self.identity.dirty = true;
            tracing::warn!("the identity file could not be written: {e}");
        }
    }

    /// Lets settled runs go that may not or need not stay; and `groups`, if they are empty.
    fn sweep(&mut self, groups: bool) {
        if std::mem::replace(&mut self.tidying.sweeping, true) {
            return;
        }
        let policy = Policy {
            retention_ms: self.config.settled_retention.as_ms(),
            limits: self.config.retention,
            full: self.tidying.is_full.then_some(KEPT_MS_FULL),
        };
        let (settled, identity, launcher) =
            (self.settled.clone(), self.identity.file.clone(), self.launcher.clone());
        self.disk.spawn(move |disk| {
            let free = || Ok(os::disk::file_system(disk.root.path())?.free_bytes);
            let remove = |dir: &RunDir| launcher.remove(disk, dir);
            let parent = launcher.cgroup_parent().filter(|_| groups);
            let groups = parent.map_or(0, |parent| groups::remove_empty(parent, &disk.root));
            if groups > 0 {
                tracing::info!(groups, "empty control groups of runs that are over were removed");
            }
            Event::Swept(settled.sweep(
                &disk.root,
                &policy,
                &identity,
                &Hands { free: &free, remove: &remove },
            ))
        });
    }

    pub(crate) fn on_swept(&mut self, done: io::Result<Done>) {
        self.tidying.sweeping = false;
        self.tidying.more = false;
        match done {
            Ok(done) => {
                self.tidying.more = done.more;
                if done.removed + done.stripped > 0 {
                    tracing::info!(
                        runs = done.removed,
                        outputs = done.stripped,
                        "settled runs were removed, and outputs of others, by their age or for want of room"
                    );
                }
            }
            Err(e) => tracing::warn!("settled runs stay past their retention: {e}"),
        }
    }

    /// The job-processors' own complaints are appended by many processes, so their file is moved aside here.
    fn rotate_job_processors_trace(&mut self) {
        let path = self.disk.root.job_processors_trace_path();
        let launcher = self.launcher.clone();
        tokio::task::spawn_blocking(move || {
            if std::fs::metadata(&path).is_ok_and(|m| m.len() > JOB_PROCESSOR_TRACE_BYTES_MAX) {
                let _ = std::fs::rename(&path, path.with_extension("log.1")); // best effort, as all tracing
                launcher.renew_nursery(); // it has the file open
            }
        });
    }

    /// SIGHUP: the configuration is read anew, away from the loop.
    pub(crate) fn on_reload(&mut self) {
        let path = self.path.clone();
        self.disk.spawn(move |_| {
            let read = AgentConfig::load(&path).map(Box::new).map_err(|e| e.to_string());
            Event::Reloaded(read)
        });
    }

    /// Takes over what can be changed while the agent runs, and says key by key what changed and what did not.
    pub(crate) fn on_reloaded(&mut self, read: Result<Box<AgentConfig>, String>) {
        let new = match read {
            Ok(new) => new,
            Err(e) => return tracing::error!("SIGHUP: everything stays as it was: {e}"),
        };
        if let Err(e) = self.links.reload(&new) {
            return tracing::error!("SIGHUP: everything stays as it was: {e:#}");
        }
        let secrets = self.secrets.reload(&new);
        for change in self.config.changes(&new) {
            match change.effect {
                Effect::Now => tracing::info!("SIGHUP: {change}"),
                Effect::Restart => tracing::warn!("SIGHUP: {change}"),
            }
        }
        match secrets {
            Ok(()) => {
                tracing::info!("SIGHUP: the secrets were read anew; links in use stay");
                self.config.secret_file = new.secret_file;
                self.config.old_secret_file = new.old_secret_file;
            }
            Err(e) => tracing::error!("SIGHUP: the secrets stay as they were: {e}"),
        }
        self.config.connect = new.connect;
        self.config.allow = new.allow;
        self.config.restart_delay = new.restart_delay;
        self.config.settled_retention = new.settled_retention;
        self.config.retention = new.retention;
        self.config.output = new.output;
        self.swept_ms = 0; // another limit counts at once
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
