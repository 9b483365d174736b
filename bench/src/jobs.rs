//! Short jobs per second through the whole system: submitted over HTTP, placed, started, ended, committed, and seen by who submitted.

use crate::figure::Figures;
use crate::site::Site;
use crate::{limits, peer};
use anyhow::Result;
use std::time::Duration;

/// The numbers of jobs in flight.
const IN_FLIGHT: [usize; 3] = [1, 8, 64];

/// The number in flight for which the limits are figures of their own.
const USUAL_IN_FLIGHT: usize = 8;

/// What is done before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);

pub(crate) fn measure(site: &Site, span: Duration, figures: &mut Figures) -> Result<()> {
    println!("==> short jobs, {} s each", span.as_secs());
    let spooler = peer::task_spooler(site.scratch(), USUAL_IN_FLIGHT)?;
    limits::rate(USUAL_IN_FLIGHT, WARM_UP, || site.run_true())?;
    for in_flight in IN_FLIGHT {
        let spawn = limits::spawn(in_flight, span)?;
        let durable = limits::durable(in_flight, span, site.scratch())?;
        if in_flight == USUAL_IN_FLIGHT {
            figures.add("limit_spawn_per_s", spawn, "1/s", &[]);
            figures.add("limit_durable_per_s", durable, "1/s", &[("limit_spawn_per_s", spawn)]);
        }
        let ours = limits::rate(in_flight, span, || site.run_true())?;
        let name = format!("short_jobs_per_s_{in_flight}");
        let (of_spawn, of_durable) =
            (format!("limit_spawn_per_s_{in_flight}"), format!("limit_durable_per_s_{in_flight}"));
        let peer = ("task_spooler_per_s", spooler.unwrap_or(0.0));
        figures.add(&name, ours, "1/s", &[(&of_spawn, spawn), (&of_durable, durable), peer]);
    }
    match spooler {
        Some(rate) => figures.add("task_spooler_per_s", rate, "1/s", &[]),
        None => println!("    task-spooler is not installed (apt-get install task-spooler): not measured"),
    }
    Ok(())
}
