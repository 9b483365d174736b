//! What network-processor and the nursery say to each other (local, seqpacket): "start this run's job-processor", and its process id. Answers
//! come in the order of the questions.

use job::RunId;
use std::io;

/// The bytes of an answer.
pub const ANSWER_BYTES: usize = 20;

/// The longest question, bytes.
pub const QUESTION_BYTES_MAX: usize = 4096;

/// The question: a run of the data root that both know, and as whom its job runs, in the words of the job-processor's `--user`; empty for the
/// agent's own user. `None`: it is too long.
pub fn ask(run_id: RunId, user: &str) -> Option<Vec<u8>> {
    let question = [&run_id.as_bytes()[..], user.as_bytes()].concat();
    (question.len() <= QUESTION_BYTES_MAX).then_some(question)
}

/// Reads a question; `None` for anything else.
pub fn asked(bytes: &[u8]) -> Option<(RunId, &str)> {
    let (run_id, user) = bytes.split_at_checked(16)?;
    Some((RunId::from_bytes(run_id).ok()?, std::str::from_utf8(user).ok()?))
}

/// The answer: the process, or why there is none.
pub fn answer(run_id: RunId, born: &io::Result<u32>) -> [u8; ANSWER_BYTES] {
    let number = match born {
        Ok(pid) => i32::try_from(*pid).unwrap_or(0),
        Err(e) => e.raw_os_error().unwrap_or(0).saturating_neg(),
    };
    let mut bytes = [0u8; ANSWER_BYTES];
    bytes[..16].copy_from_slice(run_id.as_bytes());
    bytes[16..].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Reads an answer; `None` for anything else.
pub fn answered(bytes: &[u8]) -> Option<(RunId, io::Result<u32>)> {
    let number = i32::from_le_bytes(bytes.get(16..)?.try_into().ok()?);
    let run_id = RunId::from_bytes(&bytes[..16]).ok()?;
    match u32::try_from(number) {
        Ok(0) => None,
        Ok(pid) => Some((run_id, Ok(pid))),
        Err(_) => Some((run_id, Err(io::Error::from_raw_os_error(number.saturating_neg())))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_survive_their_bytes_and_nothing_else_is_one() {
        let run_id = RunId::new(1, 2);
        assert_eq!(asked(&ask(run_id, "").unwrap()), Some((run_id, "")));
        assert_eq!(asked(&ask(run_id, "a:1:2").unwrap()), Some((run_id, "a:1:2")));
        assert_eq!(ask(run_id, &"x".repeat(QUESTION_BYTES_MAX)), None);
        assert_eq!(asked(b"x"), None);
        let (run, born) = answered(&answer(run_id, &Ok(77))).unwrap();
        assert_eq!((run, born.unwrap()), (run_id, 77));
        let refused = Err(io::Error::from_raw_os_error(11));
        let (_, born) = answered(&answer(run_id, &refused)).unwrap();
        assert_eq!(born.unwrap_err().raw_os_error(), Some(11));
        assert!(answered(&[0; ANSWER_BYTES]).is_none());
        assert!(answered(b"").is_none());
    }
}
