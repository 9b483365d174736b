//! Prints what an agent's programs traced. It is read from the agent itself, through the server.

use crate::client::{Call, CallError, Client, encode};
use crate::exit::{self, failure};
use crate::output::{bytes, hint};
use clap::{Args, ValueEnum};
use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc;
use std::thread;

/// When a follower has to ask again, so much is read once more, so that no line is missed.
const OVERLAP_BYTES: u64 = 64 << 10;
/// A followed answer ends after this time, and the next one goes on; less than any read may take.
const FOLLOW_WAIT: &str = "60s";
/// So many lines wait for whoever prints.
const LINES_WAITING_MAX: usize = 1_000;

/// Whose trace, and how much of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword agent logs host1                                the newest lines of its programs, by time
  lastword agent logs host1 --program platform-agent       of the monitor only
  lastword agent logs host1 --tail 1000000 | grep WARN
  lastword agent logs host1 --follow                       as they are written")]
pub(crate) struct Logs {
    /// Its name.
    agent: String,
    /// Of this program only.
    #[arg(long, value_enum)]
    program: Option<Program>,
    /// Begin so many bytes before the end of each program's trace.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 10)]
    tail: u64,
    /// Go on with what is written later.
    #[arg(short, long)]
    follow: bool,
}

/// The programs of an agent that trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// Its link, its runs, its disk.
    NetworkProcessor,
    /// The monitor.
    PlatformAgent,
}

impl Program {
    const ALL: [Program; 2] = [Program::NetworkProcessor, Program::PlatformAgent];

    fn name(self) -> &'static str {
        match self {
            Program::NetworkProcessor => "network-processor",
            Program::PlatformAgent => "platform-agent",
        }
    }
}

impl Logs {
    pub(crate) fn run(self, client: &Client) -> anyhow::Result<u8> {
        let programs = self.program.map_or(Program::ALL.to_vec(), |program| vec![program]);
        if self.follow {
            return self.follow(client, &programs);
        }
        let mut lines: Vec<String> = Vec::new();
        for program in programs {
            let path = path(&self.agent, program, self.tail);
            let text = client.reply(&Call { path: &path, repeatable: true, ..Call::default() })?.body;
            lines.extend(String::from_utf8_lossy(&text).lines().map(str::to_owned));
        }
        bytes(by_time(lines).as_bytes())?;
        Ok(0)
    }

    /// Prints whole lines of all programs as they come, until something cannot be repaired.
    fn follow(self, client: &Client, programs: &[Program]) -> anyhow::Result<u8> {
        let (print, lines) = mpsc::sync_channel::<Result<String, CallError>>(LINES_WAITING_MAX);
        for &program in programs {
            let (client, print, agent, tail) = (client.clone(), print.clone(), self.agent.clone(), self.tail);
            let read = move || {
                let path = |tail| format!("{}&follow=true&wait={FOLLOW_WAIT}", path(&agent, program, tail));
                if let Some(error) = follow_one(&client, tail, path, |line| print.send(Ok(line)).is_ok()) {
                    let _ = print.send(Err(error)); // nobody prints any more
                }
            };
            thread::Builder::new().name(program.name().to_owned()).spawn(read)?;
        }
        drop(print);
        hint(&format!("following {}; Ctrl-C ends this", self.agent));
        for line in lines {
            bytes(format!("{}\n", line?).as_bytes())?;
        }
        Err(failure(exit::AWAY, "the answers broke off; try again"))
    }
}

fn path(agent: &str, program: Program, tail: u64) -> String {
    format!("/api/v1/agents/{}/logs/{}?tail={tail}", encode(agent), program.name())
}

/// Reads one program's lines until the reader has enough (none) or asking again makes no sense (the error).
fn follow_one(
    client: &Client,
    tail: u64,
    path: impl Fn(u64) -> String,
    mut line: impl FnMut(String) -> bool,
) -> Option<CallError> {
    let (mut last, mut tail): (Option<String>, u64) = (None, tail);
    loop {
        let question = path(tail);
        let call = Call { path: &question, repeatable: true, ..Call::default() };
        let answer = match client.patiently(|| client.download(&call)) {
            Ok(answer) => answer,
            Err(error) => return Some(error),
        };
        for next in new_lines(answer.body, last.clone()) {
            last = Some(next.clone());
            if !line(next) {
                return None;
            }
        }
        if last.is_some() {
            tail = OVERLAP_BYTES;
        }
    }
}

/// The whole lines of an answer behind the one that was printed last; all of them if that is not among them.
fn new_lines(answer: impl Read, last: Option<String>) -> impl Iterator<Item = String> {
    let mut held: Vec<String> = Vec::new();
    let mut last = last;
    let mut lines = whole_lines(answer);
    let mut ready: std::vec::IntoIter<String> = Vec::new().into_iter();
    std::iter::from_fn(move || {
        loop {
            if let Some(line) = ready.next() {
                return Some(line);
            }
            let Some(wanted) = &last else { return lines.next() };
            match lines.next() {
                Some(line) if line == *wanted => (held, last) = (Vec::new(), None),
                Some(line) => held.push(line),
                None if held.is_empty() => return None,
                None => (ready, last) = (std::mem::take(&mut held).into_iter(), None),
            }
        }
    })
}

/// Lines that were read to their end; half a one comes again.
fn whole_lines(answer: impl Read) -> impl Iterator<Item = String> {
    let mut reader = BufReader::new(answer);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match reader.read_until(b'\n', &mut line) {
            Ok(_) if line.ends_with(b"\n") => {
                line.pop();
                Some(String::from_utf8_lossy(&line).into_owned())
            }
            Ok(_) | Err(_) => None,
        }
    })
}

/// The lines of several programs by the time at which each begins; a line without one stays behind the one before.
fn by_time(lines: Vec<String>) -> String {
    let mut stamped: Vec<(String, String)> = Vec::with_capacity(lines.len());
    let mut stamp = String::new();
    for line in lines {
        let word = line.split(' ').next().unwrap_or_default();
        if word.ends_with('Z') && word.starts_with(|c: char| c.is_ascii_digit()) {
            stamp = word.to_owned();
        }
        stamped.push((stamp.clone(), line));
    }
    stamped.sort_by(|(one, _), (other, _)| one.cmp(other));
    stamped.into_iter().map(|(_, line)| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_programs_are_in_the_order_of_time() {
        let lines = [
            "2026-11-22T09:00:00.100Z  INFO a: 1",
            "2026-11-22T09:00:00.300Z  INFO a: 3",
            "more of 3",
            "2026-11-22T09:00:00.200Z  WARN b: 2",
        ];
        let sorted = by_time(lines.map(str::to_owned).to_vec());
        let order: Vec<char> = sorted.lines().filter_map(|line| line.chars().last()).collect();
        assert_eq!(order, ['1', '2', '3', '3']);
    }

    #[test]
    fn what_was_printed_before_is_not_printed_again_and_half_a_line_not_at_all() {
        let new = |text: &str, last: Option<&str>| {
            new_lines(text.as_bytes(), last.map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(new("a\nb\nha", None), ["a", "b"]);
        assert_eq!(new("a\nb\nc\n", Some("b")), ["c"]);
        assert_eq!(new("a\nb\n", Some("b")), Vec::<String>::new());
        assert_eq!(new("c\nd\n", Some("b")), ["c", "d"], "it was put aside meanwhile");
    }
}
