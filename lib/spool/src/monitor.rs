//! What is said on the monitor's socket (local, seqpacket): the monitor parses nothing that came over a network.
//!
//! | message             | from              | means                                                                      |
//! |---------------------|-------------------|----------------------------------------------------------------------------|
//! | `H` run, pid, pidfd | job-processor     | hold this: if I go without `D`, you are the witness                         |
//! | `D` run             | job-processor     | the outcome is on disk                                                     |
//! | `A` run             | network-processor | are you the witness of this run? answered by `Y` or `N`                     |
//! | `W` run, pid, pidfd | network-processor | this job's job-processor is dead: watch it beside me, in case I go too      |

use job::RunId;

/// A request to the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Hold the pidfd that comes with this message.
    Hold {
        /// The run.
        run_id: RunId,
        /// The process of the pidfd.
        pid: u32,
    },
    /// The outcome is recorded.
    Done {
        /// The run.
        run_id: RunId,
    },
    /// Is the monitor going to record the outcome of this run?
    Ask {
        /// The run.
        run_id: RunId,
    },
    /// Watch the orphan whose pidfd comes with this message.
    Watch {
        /// The run.
        run_id: RunId,
        /// The process of the pidfd.
        pid: u32,
    },
}

/// The answer to [`Request::Ask`] if the monitor holds the run.
pub const YES: &[u8] = b"Y";
/// The answer if it does not.
pub const NO: &[u8] = b"N";

impl Request {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Request::Hold { run_id, pid } => with_pid(b"H", run_id, *pid),
            Request::Watch { run_id, pid } => with_pid(b"W", run_id, *pid),
            Request::Done { run_id } => [b"D", &run_id.as_bytes()[..]].concat(),
            Request::Ask { run_id } => [b"A", &run_id.as_bytes()[..]].concat(),
        }
    }

    /// Reads one; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Request> {
        let (kind, rest) = bytes.split_first()?;
        let run_id = RunId::from_bytes(rest.get(..16)?).ok()?;
        let pid = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
        match (kind, &rest[16..]) {
            (b'H', bytes) => Some(Request::Hold { run_id, pid: pid(bytes)? }),
            (b'W', bytes) => Some(Request::Watch { run_id, pid: pid(bytes)? }),
            (b'D', []) => Some(Request::Done { run_id }),
            (b'A', []) => Some(Request::Ask { run_id }),
            _ => None,
        }
    }
}

fn with_pid(kind: &[u8], run_id: &RunId, pid: u32) -> Vec<u8> {
    [kind, &run_id.as_bytes()[..], &pid.to_le_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_their_bytes_and_nothing_else_is_one() {
        let run_id = RunId::new(1, 2);
        for request in [
            Request::Hold { run_id, pid: 77 },
            Request::Done { run_id },
            Request::Ask { run_id },
            Request::Watch { run_id, pid: 78 },
        ] {
            let bytes = request.encode();
            assert_eq!(Request::decode(&bytes), Some(request));
            assert_eq!(Request::decode(&bytes[..bytes.len() - 1]), None);
            assert_eq!(Request::decode(&[&bytes[..], b"x"].concat()), None);
        }
        assert_eq!(Request::decode(b""), None);
    }
}
