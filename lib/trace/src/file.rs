//! The trace file of one program and its older numbers.

use crate::clock;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A trace file is put aside before it grows beyond this.
pub const TRACE_FILE_BYTES_MAX: u64 = 16 << 20;

/// Files of one program, the newest (`x.log`) and the older (`x.log.1` …) together.
pub const TRACE_FILES_MAX: u32 = 5;

/// A line longer than this is cut.
pub const TRACE_LINE_BYTES_MAX: usize = 64 << 10;

/// After an error nothing is tried for this long: an ill disk is asked once a second, not once a line.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Where the lines of one program go; one owner, which serialises.
pub(crate) struct TraceFile {
    path: PathBuf,
    limits: Limits,
    file: Option<File>,
    bytes: u64,
    trouble: Trouble,
}

struct Limits {
    file_bytes_max: u64,
    files_max: u32,
    retry_pause: Duration,
}

/// What went wrong since the last line that could be written.
#[derive(Default)]
struct Trouble {
    dropped_lines: u64,
    reason: String,
    since: Option<Instant>,
}

impl TraceFile {
    /// `<dir>/<program>.log`; opened at the first line.
    pub(crate) fn new(dir: &Path, program: &str) -> TraceFile {
        let limits = Limits {
            file_bytes_max: TRACE_FILE_BYTES_MAX,
            files_max: TRACE_FILES_MAX,
            retry_pause: RETRY_PAUSE,
        };
        let path = dir.join(format!("{program}.log"));
        TraceFile { path, limits, file: None, bytes: 0, trouble: Trouble::default() }
    }

    /// Writes one line, or drops and counts it.
    pub(crate) fn write_line(&mut self, line: &[u8]) {
        if self.trouble.since.is_some_and(|since| since.elapsed() < self.limits.retry_pause) {
            self.trouble.dropped_lines += 1;
            return;
        }
        if let Err(error) = self.try_write(line) {
            self.file = None;
            self.trouble.dropped_lines += 1;
            self.trouble.reason = error.to_string();
            self.trouble.since = Some(Instant::now());
        }
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        self.make_ready(line.len() as u64)?;
        let Some(file) = &mut self.file else { return Ok(()) };
        if let Trouble { dropped_lines: lost @ 1.., reason, .. } = &self.trouble {
            // A new line first: the trouble may have left half of one.
            let said = format!("\n{}  WARN trace: {lost} lines were lost here: {reason}\n", clock::now());
            file.write_all(said.as_bytes())?;
            self.bytes += said.len() as u64;
        }
        self.trouble = Trouble::default();
        file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Has an open file with room for that many bytes, in a directory that is there.
    fn make_ready(&mut self, line_bytes: u64) -> io::Result<()> {
        let removed = |file: &File| file.metadata().is_ok_and(|metadata| metadata.nlink() == 0);
        if self.file.as_ref().is_none_or(removed) {
            self.open()?;
        }
        if self.bytes > 0 && self.bytes + line_bytes > self.limits.file_bytes_max {
            self.rotate()?;
            self.open()?;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// The oldest goes, every other becomes one older. The limit stands above the lines: if renaming fails, they are lost.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..self.limits.files_max).rev() {
            let newer = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match std::fs::rename(newer, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// The name of an older one.
pub(crate) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of its own for each test, removed at its end.
    pub(crate) struct Scratch(pub(crate) PathBuf);

    impl Scratch {
        pub(crate) fn new() -> Scratch {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("lastword-trace-{}-{number}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Scratch(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn small(dir: &Path) -> TraceFile {
        let mut file = TraceFile::new(dir, "p");
        file.limits = Limits { file_bytes_max: 100, files_max: 3, retry_pause: Duration::ZERO };
        file
    }

    fn lines_of(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    #[test]
    fn rotation_keeps_the_newest_lines_and_the_limits() {
        let scratch = Scratch::new();
        let mut file = small(&scratch.0);
        for number in 0..100 {
            file.write_line(format!("line {number:04}\n").as_bytes());
        }
        let kept: Vec<String> =
            ["p.log.2", "p.log.1", "p.log"].iter().flat_map(|name| lines_of(&scratch.0.join(name))).collect();
        let newest: Vec<String> = (100 - kept.len()..100).map(|number| format!("line {number:04}")).collect();
        assert_eq!(kept, newest);
        assert!(kept.len() > 20);
        assert!(!scratch.0.join("p.log.3").exists());
        assert!(fs::metadata(scratch.0.join("p.log.1")).unwrap().len() <= 100);
    }

    #[test]
    fn a_new_start_goes_on_in_the_same_file() {
        let scratch = Scratch::new();
        small(&scratch.0).write_line(b"before\n");
        small(&scratch.0).write_line(b"after\n");
        assert_eq!(lines_of(&scratch.0.join("p.log")), ["before", "after"]);
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_so_when_there_is_room_again() {
        let scratch = Scratch::new();
        let path = scratch.0.join("p.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut file = small(&scratch.0);
        (0..3).for_each(|_| file.write_line(b"lost\n"));
        fs::remove_file(&path).unwrap();
        file.write_line(b"again\n");
        let lines = lines_of(&path);
        assert!(lines[1].contains("3 lines were lost here: No space left on device"), "{lines:?}");
        assert_eq!(lines[2], "again");
    }

    #[test]
    fn a_removed_directory_is_made_again_for_its_owner_only() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("trace");
        let mut file = small(&dir);
        file.write_line(b"one\n");
        fs::remove_dir_all(&dir).unwrap();
        file.write_line(b"two\n");
        assert_eq!(lines_of(&dir.join("p.log")), ["two"]);
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(dir.join("p.log")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_asked_for_once_in_a_while_only() {
        let scratch = Scratch::new();
        fs::write(scratch.0.join("trace"), "a file").unwrap();
        let mut file = small(&scratch.0.join("trace"));
        file.limits.retry_pause = Duration::from_secs(3600);
        (0..5).for_each(|_| file.write_line(b"lost\n"));
        assert_eq!(file.trouble.dropped_lines, 5);
        fs::remove_file(scratch.0.join("trace")).unwrap();
        file.write_line(b"lost too\n");
        file.limits.retry_pause = Duration::ZERO;
        file.write_line(b"kept\n");
        let lines = lines_of(&scratch.0.join("trace/p.log"));
        assert!(lines[1].contains("6 lines were lost here"), "{lines:?}");
        assert_eq!(lines[2], "kept");
    }
}
