//! What a job costs in CPU time, process by process. Unlike a rate it hardly depends on what else the machine does.

use ::tests::{Agent, Site};
use anyhow::{Context, Result};

/// Microseconds in a clock tick of `/proc` (proc(5): 100 a second on every platform that this is built for).
const TICK_US: u64 = 10_000;

/// Whose time is told, in this order. The job-processors' is with the jobs that they reaped; the client is this process.
pub(crate) const PROCESSES: [&str; 5] =
    ["server", "network_processor", "job_processor_and_job", "monitor", "client"];

/// CPU time used so far, microseconds.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    /// As [`PROCESSES`].
    by_process: [u64; 5],
    /// What this process started and reaped: the limits' jobs.
    limits: u64,
}

impl Used {
    /// Asks for the CPU time of each process of the site.
    pub(crate) fn now(site: &Site, agent: &Agent) -> Result<Used> {
        let link = of(agent.network_processor()?.context("no network-processor")?.pid)?;
        let monitor = of(agent.monitor().context("no platform-agent")?.pid)?;
        let server = of(site.server.process().context("no server")?.pid)?;
        let client = of(std::process::id())?;
        let by_process = [server.own_us, link.own_us, link.reaped_us, monitor.own_us, client.own_us];
        Ok(Used { by_process, limits: client.reaped_us })
    }

    /// What each of so many jobs cost until `after`, microseconds, as [`PROCESSES`].
    pub(crate) fn cost_until(&self, after: &Used, jobs: u64) -> [f64; 5] {
        let each =
            |n: usize| after.by_process[n].saturating_sub(self.by_process[n]) as f64 / jobs.max(1) as f64;
        std::array::from_fn(each)
    }

    /// What was used since `before` by the jobs of the limits.
    pub(crate) fn limits_us_since(&self, before: &Used) -> u64 {
        self.limits.saturating_sub(before.limits)
    }
}

/// CPU time that the agent's network-processor used so far, microseconds.
pub(crate) fn network_processor_us(agent: &Agent) -> Result<u64> {
    Ok(of(agent.network_processor()?.context("no network-processor")?.pid)?.own_us)
}

struct Times {
    own_us: u64,
    reaped_us: u64,
}

fn of(pid: u32) -> Result<Times> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse(&text).with_context(|| format!("{path} has no times: {text}"))
}

/// Fields 14 to 17: user and system time, and those of the children that were waited for.
fn parse(stat: &str) -> Option<Times> {
    // The command's name may hold anything; the last parenthesis ends it, and field 3 follows.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Vec<u64> =
        fields.split_ascii_whitespace().skip(11).take(4).map_while(|field| field.parse().ok()).collect();
    let [user, system, children_user, children_system] = ticks[..] else { return None };
    Some(Times { own_us: (user + system) * TICK_US, reaped_us: (children_user + children_system) * TICK_US })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_fields_14_to_17_whatever_the_name_is() {
        let mut line = "42 (a) b (c) S".to_owned();
        (4..=52).for_each(|field| line += &format!(" {field}"));
        let times = parse(&line).unwrap();
        assert_eq!((times.own_us, times.reaped_us), ((14 + 15) * TICK_US, (16 + 17) * TICK_US));
        assert!(parse("42 (x) S 1").is_none());
        assert!(of(std::process::id()).is_ok());
    }
}
