//! Names in the store: `JOB/RUN/HASH`. A file's name is the job's choice, so it never becomes part of a path: a hash of it does.

use job::{JobId, RunId};
use sha2::{Digest, Sha256};

/// Characters of the hash: enough that no two names of one run ever meet.
const HASH_CHARS: usize = 40;

/// The mark by which a server knows its own store again.
pub(super) const MARK: &str = "lastword-store";

/// Where the file of that name belongs.
pub(super) fn of(job: JobId, run: RunId, name: &str) -> String {
    let mut hash = hex(&Sha256::digest(name.as_bytes()));
    hash.truncate(HASH_CHARS);
    format!("{job}/{run}/{hash}")
}

/// The job and the run of a key; `None` for what is not one of ours.
pub(super) fn read(key: &str) -> Option<(JobId, RunId)> {
    let mut parts = key.split('/');
    let (job, run, hash) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
    (parts.next().is_none() && hash.len() == HASH_CHARS).then_some((JobId(job), run))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_its_run_and_no_two_names_meet() {
        let run = RunId::new(1_000, 7);
        let prefix = format!("42/{run}/");
        let names = ["a", "../../etc/passwd", "/", "..", "", "a/b", "a\nb", "x#1", &"ü".repeat(5_000)];
        let keys: std::collections::BTreeSet<String> =
            names.iter().map(|name| of(JobId(42), run, name)).collect();
        assert_eq!(keys.len(), names.len());
        for key in keys {
            let hash = key.strip_prefix(&prefix).unwrap();
            assert!(hash.len() == HASH_CHARS && hash.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
            assert_eq!(read(&key), Some((JobId(42), run)));
        }
    }

    #[test]
    fn what_is_not_a_key_of_ours_is_known_as_such() {
        let run = RunId::new(1_000, 7);
        for other in [
            "",
            MARK,
            "1",
            "1/2/3",
            &format!("1/{run}"),
            &format!("1/{run}/ab"),
            &format!("x/{run}/{}", "a".repeat(40)),
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
