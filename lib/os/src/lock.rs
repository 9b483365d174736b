//! POSIX record locks (`fcntl(2)`, `F_SETLK`): whoever holds the log's lock is alive.
//!
//! Not flock, not OFD locks: those belong to the open file, which a forked job inherits, so they would outlive the job-processor.
//! The price: a lock belongs to the process, and closing *any* descriptor of the file drops it. So the holder opens the file
//! once, and testers are other processes.

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, fcntl_getlk};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Takes the exclusive lock on the whole file. `false`: another process holds it.
pub fn try_lock(file: impl AsFd) -> io::Result<bool> {
    match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// As [`try_lock`], but gives a holder that is just going (killed, not yet gone) up to `patience` for it.
pub fn lock_patiently(file: impl AsFd, patience: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        if try_lock(&file)? {
            return Ok(true);
        }
        if begun.elapsed() >= patience {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The process that holds the lock, without taking it. Our own lock is not seen (`F_GETLK`).
pub fn holder(file: impl AsFd) -> io::Result<Option<u32>> {
    let found = fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?;
    Ok(found.map(|lock| lock.pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())))
}
