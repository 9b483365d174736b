//! One failure of the network for each agent, all at the same time, by proxies.

use crate::add_behind_proxy;
use std::time::Duration;
use tests::{Dialling, Flow, Jobs, Part, Proxy, Random, Tally, Weather, on_empty_site, seed, wait_until};

const JOBS: usize = 10;
const SLEEP_MS_MAX: u64 = 2_000;

/// What happens to an agent's link, and whether it is noticed by silence.
const KINDS: [(&str, Weather, bool); 5] = [
    ("there-swallowed", Weather { there: Flow::Swallowed, ..FAIR }, true),
    ("back-swallowed", Weather { back: Flow::Swallowed, ..FAIR }, true),
    ("stalled", Weather { there: Flow::Stalled, back: Flow::Stalled, ..FAIR }, true),
    ("late", Weather { delay: Duration::from_millis(300), ..FAIR }, false),
    ("slow", Weather { bytes_per_second: Some(4_000), ..FAIR }, false),
];
const FAIR: Weather = Weather {
    there: Flow::Through,
    back: Flow::Through,
    delay: Duration::ZERO,
    bytes_per_second: None,
    closed: false,
};

#[test]
fn whatever_the_network_does_to_the_bytes_every_job_is_executed_once_and_told() {
    on_empty_site(|site| {
        let mut tally =
            Tally::new(Part::Network, "delay, loss of one direction, stalls and a slow network lose nothing");
        tally.seed(seed());
        let (mut jobs, mut random) = (Jobs::new(), Random::from_seed());
        let mut proxies = Vec::new();
        for (kind, _, _) in KINDS {
            for dialling in [Dialling::In, Dialling::Out] {
                proxies.push(add_behind_proxy(site, &format!("{kind}-{dialling:?}"), dialling, || None)?);
            }
        }
        let names: Vec<String> = site.agents.iter().map(|agent| agent.name().to_owned()).collect();
        for name in &names {
            site.wait_connected(name)?;
            jobs.submit(site, &mut random, JOBS, Some(name), SLEEP_MS_MAX)?;
        }
        wait_until("some jobs to run", || Ok(jobs.begun(site)? > names.len()))?;
        let weathers = KINDS.iter().flat_map(|(_, weather, _)| [*weather, *weather]);
        proxies.iter().zip(weathers).for_each(|(proxy, weather)| proxy.set(weather));
        for name in &names {
            jobs.submit(site, &mut random, JOBS, Some(name), SLEEP_MS_MAX)?;
        }
        for (name, (_, _, silent)) in names.iter().zip(KINDS.iter().flat_map(|kind| [*kind, *kind])) {
            if silent {
                site.wait_away(name)?; // nobody learns of it but by silence
                tally.count("dead links noticed", 1);
            }
        }
        proxies.iter().for_each(Proxy::calm);
        for name in &names {
            site.wait_connected(name)?;
        }
        tally.count("links impaired", names.len() as u64);
        tally.count("jobs compared", jobs.compare(site)?);
        tally.kept();
        Ok(())
    });
}
