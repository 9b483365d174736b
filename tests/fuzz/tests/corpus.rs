//! Every input of the corpus and mutations of it, on every change: nothing panics, hangs or takes more memory than it may.
//!
//! `LASTWORD_FUZZ_INPUTS`: how many mutations per target (3,000). `LASTWORD_TEST_SEED` repeats the choices.

use cap::Cap;
use fuzzing::mutate::Mutator;
use fuzzing::{TARGETS, Target, target};
use std::alloc::System;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tally::{Part, Tally};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

const INPUTS: u64 = 3_000;
/// Whatever takes longer hangs, however busy the machine is.
const INPUT_MAX: Duration = Duration::from_secs(20);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

fn folder(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name)
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = folder(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("an input")).collect()
}

/// Says which input it was, whatever happens with it.
struct Shown<'a>(&'a Target, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = std::env::temp_dir().join(format!("lastword-fuzz-{}", self.0.name));
            let kept =
                std::fs::write(&path, self.1).map_or_else(|e| e.to_string(), |()| path.display().to_string());
            eprintln!("{} bytes for {}: {kept}", self.1.len(), self.0.name);
        }
    }
}

/// One input: no panic, no hang, and no more memory than the target may take.
fn feed(target: &Target, input: &[u8]) {
    let shown = Shown(target, input);
    let (before, begin) = (MEMORY.max_allocated().max(MEMORY.allocated()), Instant::now());
    let held = MEMORY.allocated();
    (target.run)(input);
    assert!(begin.elapsed() < INPUT_MAX, "it took {:?}", begin.elapsed());
    let peak = MEMORY.max_allocated();
    let took = if peak > before { peak - held } else { 0 };
    assert!(took <= target.memory_bytes_max, "it took {took} bytes, {} are allowed", target.memory_bytes_max);
    drop(shown);
}

fn all(name: &str) {
    let target = target(name).expect("a target");
    let mut tally =
        Tally::new(Part::Fuzzing, "no input makes anything panic, hang or take more memory than it may");
    let seed = number("LASTWORD_TEST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    eprintln!("LASTWORD_TEST_SEED={seed}");
    tally.seed(seed);
    let corpus = corpus(target);
    assert!(!corpus.is_empty(), "{name} has no corpus");
    corpus.iter().for_each(|input| feed(target, input));
    let mut mutator = Mutator::new(seed);
    let inputs = number("LASTWORD_FUZZ_INPUTS").unwrap_or(INPUTS);
    for _ in 0..inputs {
        feed(target, &mutator.input(&corpus, target.input_bytes_max));
    }
    tally.count(&format!("inputs to {name}"), inputs + corpus.len() as u64);
    tally.kept();
}

macro_rules! targets {
    ($($promise:ident $name:literal)*) => {
        $(
            #[test]
            fn $promise() {
                all($name);
            }
        )*

        #[test]
        fn every_target_is_tried_here() {
            let here = [$($name),*];
            assert!(TARGETS.iter().all(|target| here.contains(&target.name)));
        }
    };
}

targets! {
    no_bytes_break_the_frame_decoder "frames"
    no_bytes_break_a_message "messages"
    no_words_of_a_stranger_break_a_session "session"
    no_words_of_an_agent_break_the_engine "engine"
    no_bytes_break_the_log_reader "log"
    no_text_breaks_the_agents_configuration "agent_config"
    no_text_breaks_the_servers_configuration "server_config"
    no_body_breaks_the_interface "api_bodies"
}

#[test]
fn an_input_that_takes_too_much_memory_is_found() {
    let greedy = Target {
        name: "greedy",
        run: |_| drop(std::hint::black_box(vec![1u8; 64 << 20])),
        input_bytes_max: 1,
        memory_bytes_max: 1 << 20,
    };
    assert!(std::panic::catch_unwind(|| feed(&greedy, b"x")).is_err());
}
