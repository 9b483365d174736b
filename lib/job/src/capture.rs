//! Which files of a job are kept after its end: patterns, relative to its working directory or absolute. `*` and `?` stand for any characters of
//! one name, `**` for any number of directories.

/// Patterns of one job.
pub const CAPTURE_PATTERNS_MAX: usize = 100;
/// The longest pattern, bytes.
pub const CAPTURE_PATTERN_BYTES_MAX: usize = 1_000;
/// Files that are kept of one run.
pub const CAPTURE_FILES_MAX: usize = 1_000;
/// Bytes that are kept of one run, all files together.
pub const CAPTURE_BYTES_MAX: u64 = 1 << 30;

/// A pattern that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no pattern of files to keep: write a path relative to the working directory or an absolute one, without \"..\", of at most {CAPTURE_PATTERN_BYTES_MAX} bytes; at most {CAPTURE_PATTERNS_MAX} patterns"
)]
pub struct CapturePatternError(String);

/// Checks the patterns of a job.
pub fn check_capture(patterns: &[String]) -> Result<(), CapturePatternError> {
    let is_bad = |pattern: &String| {
        let names = pattern.strip_prefix('/').unwrap_or(pattern).split('/');
        pattern.len() > CAPTURE_PATTERN_BYTES_MAX
            || pattern.contains('\0')
            || names.into_iter().any(|name| matches!(name, "" | "." | ".."))
    };
    let beyond = patterns.get(CAPTURE_PATTERNS_MAX);
    match patterns.iter().find(|pattern| is_bad(pattern)).or(beyond) {
        Some(pattern) => Err(CapturePatternError(pattern.clone())),
        None => Ok(()),
    }
}

/// Whether a name of a directory entry fits a part of a pattern.
pub fn name_fits(part: &str, name: &str) -> bool {
    let (part, name): (Vec<char>, Vec<char>) = (part.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None; // the last `*`, and what it has swallowed up to
    while n < name.len() {
        match part.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            Some(_) | None => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    (p, n) = (at + 1, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    part[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_their_patterns() {
        for (part, name) in
            [("*.pdf", "a.pdf"), ("*", ""), ("a?c", "abc"), ("*a*b*", "xxaxxbxx"), ("ü*", "über")]
        {
            assert!(name_fits(part, name), "{part} {name}");
        }
        for (part, name) in [("*.pdf", "a.pdfx"), ("a?c", "ac"), ("", "a"), ("*a*b", "ba"), ("abc", "ab")] {
            assert!(!name_fits(part, name), "{part} {name}");
        }
    }

    #[test]
    fn patterns_cannot_climb_out() {
        let check = |pattern: &str| check_capture(&[pattern.to_owned()]);
        for good in ["a", "report/*.pdf", "/var/tmp/x", "**/sum"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "..", "a/../b", "/", "a//b", "./a", "a/"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check_capture(&vec!["a".to_owned(); CAPTURE_PATTERNS_MAX + 1]).is_err());
    }
}
