//! Reads what a program traced: from some bytes before the present end, across rotations, and on as it grows.
//!
//! Best effort, like the writing: where more than one rotation happened between two looks, what was in between is passed over.

use crate::file::numbered;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// So many bytes are looked through for the beginning of a line.
const LINE_SEARCH_BYTES: usize = crate::TRACE_LINE_BYTES_MAX + 64;

/// The trace of one program. Bytes are counted from where this reader began.
#[derive(Debug)]
pub struct TraceReader {
    path: PathBuf,
    /// The oldest first; the last one is that into which was written at the latest look.
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    file: File,
    /// Its first byte of interest.
    skip: u64,
    /// What that byte is counted as.
    begin: u64,
}

impl TraceReader {
    /// Begins at most `bytes_max` before the present end of `<dir>/<program>.log`, at the beginning of a line, perhaps in the file before it.
    pub fn open(dir: &Path, program: &str, bytes_max: u64) -> io::Result<TraceReader> {
        let path = dir.join(format!("{program}.log"));
        let newest = File::open(&path)?;
        let mut left = bytes_max;
        let mut parts = vec![Part::tail(newest, &mut left)?];
        for number in 1..crate::TRACE_FILES_MAX {
            if left == 0 {
                break;
            }
            match File::open(numbered(&path, number)) {
                Ok(file) => parts.push(Part::tail(file, &mut left)?),
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            }
        }
        parts.reverse();
        let mut begin = 0;
        for part in &mut parts {
            part.begin = begin;
            begin = part.end()?;
        }
        Ok(TraceReader { path, parts })
    }

    /// So many bytes from there on, as far as there are as many, and how many there are by now. What was passed is not read again: `offset` only grows.
    pub fn read(&mut self, offset: u64, bytes_max: usize) -> io::Result<(Vec<u8>, u64)> {
        self.follow_rotation()?;
        while self.parts.len() > 1 && self.parts[0].end()? <= offset {
            self.parts.remove(0);
        }
        let mut data = Vec::new();
        let mut end = 0;
        for part in &self.parts {
            end = part.end()?;
            let at = offset + data.len() as u64;
            let wanted = end.saturating_sub(at).min((bytes_max - data.len()) as u64);
            if at >= part.begin && wanted > 0 {
                part.read(at, wanted, &mut data)?;
            }
        }
        Ok((data, end))
    }

    /// If the file was put aside meanwhile, goes on in the new one.
    fn follow_rotation(&mut self) -> io::Result<()> {
        let Some(last) = self.parts.last() else { return Ok(()) };
        let present = match std::fs::metadata(&self.path) {
            Ok(present) => present,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()), // amid a rotation, or removed
            Err(e) => return Err(e),
        };
        if present.ino() != last.file.metadata()?.ino() {
            let begin = last.end()?;
            self.parts.push(Part { file: File::open(&self.path)?, skip: 0, begin });
        }
        Ok(())
    }
}

impl Part {
    /// The end of a file, at most `left` bytes of it, from the beginning of a line on.
    fn tail(file: File, left: &mut u64) -> io::Result<Part> {
        let bytes = file.metadata()?.len();
        let mut skip = bytes.saturating_sub(*left);
        if skip > 0 {
            // The line that begins before it is left out, unless the one before just ended.
            let mut piece = vec![0; LINE_SEARCH_BYTES];
            let read = file.read_at(&mut piece, skip - 1)?;
            let end_of_line = piece[..read].iter().position(|byte| *byte == b'\n');
            skip = end_of_line.map_or(bytes, |place| skip + place as u64);
        }
        *left = left.saturating_sub(bytes);
        Ok(Part { file, skip, begin: 0 })
    }

    fn end(&self) -> io::Result<u64> {
        Ok(self.begin + self.file.metadata()?.len().saturating_sub(self.skip))
    }

    fn read(&self, at: u64, wanted: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let before = into.len();
        into.resize(before + usize::try_from(wanted).unwrap_or(0), 0);
        let read = self.file.read_at(&mut into[before..], self.skip + (at - self.begin))?;
        into.truncate(before + read);
        Ok(())
    }
}

/// The last lines of a program's trace, at most so many bytes.
pub fn tail(dir: &Path, program: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut reader = TraceReader::open(dir, program, bytes_max)?;
    let wanted = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut lines = Vec::new();
    loop {
        let (piece, _) = reader.read(lines.len() as u64, wanted - lines.len())?;
        if piece.is_empty() {
            return Ok(lines);
        }
        lines.extend(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::Scratch;
    use std::fs;

    fn write(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
    }

    fn text(read: (Vec<u8>, u64)) -> (String, u64) {
        (String::from_utf8(read.0).unwrap(), read.1)
    }

    #[test]
    fn the_end_begins_with_a_whole_line_and_reaches_back_over_rotations() {
        let scratch = Scratch::new();
        write(&scratch.0, "p.log.2", "oldest\n");
        write(&scratch.0, "p.log.1", "first\nsecond\n");
        write(&scratch.0, "p.log", "third\nfourth\n");
        for (bytes_max, lines) in [
            (0, ""),
            (3, ""),
            (7, "fourth\n"),
            (9, "fourth\n"),
            (13, "third\nfourth\n"),
            (20, "second\nthird\nfourth\n"),
            (26, "first\nsecond\nthird\nfourth\n"),
            (1 << 20, "oldest\nfirst\nsecond\nthird\nfourth\n"),
        ] {
            let read = tail(&scratch.0, "p", bytes_max).unwrap();
            assert_eq!(String::from_utf8(read).unwrap(), lines, "{bytes_max}");
        }
        assert_eq!(tail(&scratch.0, "q", 9).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_written_later_is_read_on_also_after_a_rotation() {
        let scratch = Scratch::new();
        let path = scratch.0.join("p.log");
        write(&scratch.0, "p.log", "one\n");
        let mut reader = TraceReader::open(&scratch.0, "p", 100).unwrap();
        assert_eq!(text(reader.read(0, 2).unwrap()), ("on".into(), 4));
        assert_eq!(text(reader.read(2, 100).unwrap()), ("e\n".into(), 4));
        fs::write(&path, "one\ntwo\n").unwrap();
        fs::rename(&path, scratch.0.join("p.log.1")).unwrap();
        assert_eq!(text(reader.read(4, 100).unwrap()), ("two\n".into(), 8), "amid the rotation");
        write(&scratch.0, "p.log", "three\n");
        assert_eq!(text(reader.read(8, 100).unwrap()), ("three\n".into(), 14));
        assert_eq!(reader.parts.len(), 1, "what was passed is closed");
        assert_eq!(text(reader.read(14, 100).unwrap()), (String::new(), 14));
    }
}
