//! Named crash points and fault points: places where a test lets a process die, as a power cut or `kill -9` would, stand still, or be told by the
//! system that a write failed. Compiled out of release builds.
//!
//! `LASTWORD_CRASH_POINTS=directory`: a point is armed while a file of its name lies there. In the file stand a [`Deed`] and, if it is not the next
//! passing that is meant, at the how manyth it happens. The process that it befalls renames the file to `<name>.<its pid>`: whoever armed the
//! point knows by that who it was, and the process that comes back does not fail at the same place again.
//!
//! | deed              | what happens                                                                   |
//! |-------------------|--------------------------------------------------------------------------------|
//! | `kill`            | the process dies by SIGKILL                                                    |
//! | `stop`            | it stops itself by SIGSTOP, and goes on if it is told so                       |
//! | `ENOSPC`, `EIO`   | what is done there fails so; a point that can only be died at takes no notice  |
//! | `ENOSPC 0`, `EIO 0` | the same at every passing, until the file is removed                         |

/// The environment variable that names the directory.
pub const POINTS: &str = "LASTWORD_CRASH_POINTS";

/// Dies or stands still here if the point is armed.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    let _ = fault(name);
}

/// The same, or an error as the system would give it.
///
/// # Errors
/// The one that the test asked for.
#[cfg(debug_assertions)]
pub fn fault(name: &str) -> std::io::Result<()> {
    armed::claim(name).map_or(Ok(()), armed::Deed::happen)
}

/// If the point is armed: `write` is called with the first half of the bytes, and then the process dies or stands still amid its write.
#[cfg(debug_assertions)]
pub fn torn(name: &str, bytes: &[u8], write: impl FnOnce(&[u8])) {
    if let Some(deed) = armed::claim(name) {
        write(&bytes[..bytes.len() / 2]);
        let _ = deed.happen();
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::OnceLock;

    /// What is to happen.
    pub(super) enum Deed {
        Kill,
        Stop,
        Fail(i32),
    }

    /// What is to happen now at that point, once.
    pub(super) fn claim(name: &str) -> Option<Deed> {
        static POINTS: OnceLock<Option<PathBuf>> = OnceLock::new();
        let points = POINTS.get_or_init(|| std::env::var_os(super::POINTS).map(PathBuf::from));
        decide(points.as_deref()?, name)
    }

    fn decide(points: &Path, name: &str) -> Option<Deed> {
        let pid = std::process::id();
        let (armed, befallen) = (points.join(name), points.join(format!("{name}.{pid}")));
        let (deed, nth) = read(&armed)?;
        if nth == 0 {
            let _ = std::fs::write(befallen, ""); // the test's own disk is well, here and below
            return Some(deed);
        }
        let passing = points.join(format!("{name}.passing.{pid}"));
        std::fs::rename(&armed, &passing).ok()?; // of several that come at once one succeeds
        let (deed, nth) = read(&passing)?;
        if nth > 1 {
            let _ = std::fs::write(&passing, format!("{} {}", deed.word(), nth - 1));
            let _ = std::fs::rename(passing, armed);
            return None;
        }
        let _ = std::fs::rename(passing, befallen);
        Some(deed)
    }

    fn read(path: &Path) -> Option<(Deed, u32)> {
        let text = std::fs::read_to_string(path).ok()?;
        let mut words = text.split_whitespace();
        let deed = match words.next()? {
            "kill" => Deed::Kill,
            "stop" => Deed::Stop,
            "ENOSPC" => Deed::Fail(libc::ENOSPC),
            "EIO" => Deed::Fail(libc::EIO),
            _ => return None,
        };
        Some((deed, words.next().map_or(Some(1), |nth| nth.parse().ok())?))
    }

    impl Deed {
        fn word(&self) -> &'static str {
            match self {
                Deed::Kill => "kill",
                Deed::Stop => "stop",
                Deed::Fail(libc::ENOSPC) => "ENOSPC",
                Deed::Fail(_) => "EIO",
            }
        }

        pub(super) fn happen(self) -> io::Result<()> {
            use rustix::process::{Signal, getpid, kill_process};
            match self {
                Deed::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
                Deed::Stop => Ok(kill_process(getpid(), Signal::STOP)?),
                Deed::Kill => {
                    let _ = kill_process(getpid(), Signal::KILL);
                    loop {
                        std::thread::park(); // the signal is on its way
                    }
                }
            }
        }
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Nothing, in a release build.
///
/// # Errors
/// None.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn fault(_name: &str) -> std::io::Result<()> {
    Ok(())
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn torn(_name: &str, _bytes: &[u8], _write: impl FnOnce(&[u8])) {}
