//! `SIM_SEED=7 cargo test -p sim` replays one seed, `SIM_SEEDS=100000` asks for more of them, `SIM_TRACE=1` shows every event.

use sim::{Report, simulate};
use std::time::{Duration, Instant};
use tally::{Part, Tally};

/// In four tests, so that several threads share them; `cargo xtask soak simulation` is for more.
const SEEDS: u64 = 10_000;
const PARTS: u64 = 4;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// Says which seed it was, also if the code under test panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat it: SIM_SEED={} cargo test -p sim --test seeds", self.0);
        }
    }
}

fn check(seed: u64) -> Report {
    let said = Seed(seed);
    let report = simulate(said.0).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    std::mem::forget(said);
    report
}

fn part(part: u64) {
    let seeds = match number("SIM_SEED") {
        Some(seed) if seed % PARTS == part => seed..seed + 1,
        Some(_) => return,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut tally = Tally::new(
        Part::Simulation,
        "whatever fails, every outcome arrives, once and as it was, or is Unknown with a reason",
    );
    let mut total = Report::default();
    let mut count = 0;
    for seed in seeds.filter(|seed| seed % PARTS == part) {
        let report = check(seed);
        count += 1;
        total.events += report.events;
        total.executions += report.executions;
        total.unknown += report.unknown;
        total.went_back += report.went_back;
    }
    println!("{count} seeds: {total:?}");
    assert!(count < 100 || (total.executions > count && total.unknown > 0), "the simulation is too tame");
    tally.count("seeds", count);
    tally.count("events", total.events);
    tally.count("jobs executed", total.executions);
    tally.count("outcomes unknown with a true reason", total.unknown);
    tally.kept();
}

#[test]
fn every_promise_is_kept_in_ten_thousand_seeds_part_1() {
    part(0);
}

#[test]
fn every_promise_is_kept_in_ten_thousand_seeds_part_2() {
    part(1);
}

#[test]
fn every_promise_is_kept_in_ten_thousand_seeds_part_3() {
    part(2);
}

#[test]
fn every_promise_is_kept_in_ten_thousand_seeds_part_4() {
    part(3);
}

#[test]
fn seeds_that_broke_a_promise_once_keep_them_all() {
    // 701392: a job-processor that found its log taken for a moment gave up the outcome that it alone knew.
    for seed in [4_101, 701_392] {
        check(seed);
    }
}

#[test]
fn a_seed_is_simulated_in_the_same_way_each_time() {
    for seed in [1, 2, 3] {
        assert_eq!(simulate(seed), simulate(seed), "seed {seed}");
    }
}

/// `cargo xtask soak simulation` runs this one: `SIM_SECONDS` from `SIM_FIRST` on, in `SIM_LANES` threads.
#[test]
#[ignore = "runs for as long as is asked"]
fn every_promise_is_kept_for_as_long_as_is_asked() {
    let (first, seconds) = (number("SIM_FIRST").unwrap_or(0), number("SIM_SECONDS").unwrap_or(60));
    let lanes = number("SIM_LANES").unwrap_or(1).max(1);
    let until = Instant::now() + Duration::from_secs(seconds);
    let lane = |lane: u64| {
        let seeds = (first + lane..).step_by(usize::try_from(lanes).unwrap_or(1));
        seeds.take_while(|_| Instant::now() < until).map(check).count()
    };
    let counts: Vec<usize> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|n| scope.spawn(move || lane(n))).collect();
        lanes.into_iter().map(|lane| lane.join().expect("a seed failed, see above")).collect()
    });
    println!("{} seeds from {first} on", counts.iter().sum::<usize>());
}
