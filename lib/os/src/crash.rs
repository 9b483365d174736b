//! Named crash points: places where a test lets a process die, as a power cut or `kill -9` would. Compiled out of release builds.
//!
//! `LASTWORD_CRASH_AT=name` arms one; with `LASTWORD_CRASH_TOKEN=file` it fires once for every time that the file can be removed, so that the
//! process that comes back does not die at the same place again.

/// Dies here by SIGKILL if the point is armed.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::OnceLock;
    static ARMED: OnceLock<(Option<String>, Option<String>)> = OnceLock::new();
    let (at, token) = ARMED.get_or_init(|| {
        (std::env::var("LASTWORD_CRASH_AT").ok(), std::env::var("LASTWORD_CRASH_TOKEN").ok())
    });
    let fires =
        at.as_deref() == Some(name) && token.as_ref().is_none_or(|file| std::fs::remove_file(file).is_ok());
    if fires {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park(); // the signal is on its way
        }
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}
