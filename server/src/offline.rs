//! What is done to a database by its own process instead of by a running server: a check, a restore, the rehearsal of one.

use crate::args::{Place, Restore};
use crate::operation::{Progress, Tell};
use crate::settings::Settings;
use crate::{db, restore, run};
use anyhow::Context;
use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How far it is, is said so often at most.
const TOLD_PAUSE: Duration = Duration::from_millis(100);

/// The data root and the database in it.
fn resolve(place: Place) -> anyhow::Result<(PathBuf, PathBuf)> {
    match place {
        Place::DataRoot(root) => {
            let root = std::path::absolute(&root).with_context(|| format!("the path {}", root.display()))?;
            let database = root.join("server.db");
            Ok((root, database))
        }
        Place::Config(config) => {
            let settings = Settings::load(&config)?;
            Ok((settings.node.data_root.clone(), settings.database_path()?))
        }
    }
}

/// Prints what is found; whether nothing was.
pub(crate) fn check_database(place: Place, progress: bool) -> anyhow::Result<bool> {
    let (_, database) = resolve(place)?;
    db::contents(&database)?; // whose file it is, before anything else is asked
    let checked = db::check_file(&database, &teller(progress))?;
    for finding in &checked.findings {
        println!("{}: {}", finding.what, finding.advice);
    }
    let db::Checked { jobs, runs, facts, findings } = &checked;
    println!("{jobs} jobs, {runs} runs, {facts} messages: {} contradictions", findings.len());
    Ok(findings.is_empty())
}

/// Restores or rehearses that; what is to be printed.
pub(crate) fn restore(order: Restore) -> anyhow::Result<String> {
    let json = order.json;
    let report = restore_or_rehearse(order)?;
    Ok(if json { serde_json::to_string_pretty(&report)? } else { report.lines().join("\n") })
}

fn restore_or_rehearse(order: Restore) -> anyhow::Result<restore::Report> {
    let tell: Tell<'_> = &teller(order.progress);
    let (root, database) = resolve(order.place)?;
    let what = restore::Order {
        backup: order.backup,
        database,
        epoch_min: order.epoch_min,
        unverified: order.unverified,
    };
    if order.rehearse {
        return restore::rehearse(&what, os::clock::wall_ms(), tell);
    }
    run::create_data_root(&root)?;
    let _lock = run::lock_data_root(&root)?;
    restore::restore(&what, os::clock::wall_ms(), tell)
}

/// Says on standard error how far it is, for the program that started this one: `progress DONE TOTAL UNIT STEP`, a line each.
fn teller(wanted: bool) -> impl Fn(Progress) {
    let last: Cell<Option<(Instant, &'static str)>> = Cell::new(None);
    move |progress| {
        let Progress { step, done, total, unit } = progress;
        let soon = |(at, before): (Instant, &str)| before == step && at.elapsed() < TOLD_PAUSE;
        if wanted && !(last.get().is_some_and(soon) && done < total) {
            last.set(Some((Instant::now(), step)));
            eprintln!("progress {done} {total} {} {step}", unit.name());
        }
    }
}
