//! Prints a job's output: what is there, or live until it has ended. Output stays with the agent; the server passes it on.

use super::wait::{conclude, detach_on_interrupt};
use super::{JobRef, path};
use crate::client::{Call, CallError, Client};
use api::Job;
use clap::Args;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};
use ureq::http::Method;

/// One piece of output.
const PIECE_BYTES: u64 = 256 << 10;
/// Between two looks at a job that writes nothing: from the first to the second, growing.
const LOOK_MIN: Duration = Duration::from_millis(50);
const LOOK_MAX: Duration = Duration::from_millis(500);
/// So long is waited for the rest of the output of a job that has ended, while its agent is away.
const REST_MAX: Duration = Duration::from_secs(15);

/// Which output of which job.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword job logs 1042                 its standard output so far
  lastword job logs 1042 --stderr        its standard error
  lastword job logs 1042 --follow        live, until it has ended
  lastword job logs 1042.1 --tail 1000   the last 1000 bytes of the first attempt")]
pub(crate) struct Logs {
    /// Its number, perhaps with that of an attempt.
    job: JobRef,
    /// Its standard error instead of its standard output.
    #[arg(long)]
    stderr: bool,
    /// Go on until it has ended.
    #[arg(short, long)]
    follow: bool,
    /// Begin this many bytes before the end.
    #[arg(long, value_name = "BYTES")]
    tail: Option<u64>,
}

/// One of the two files that a job writes, and how much of it was printed.
struct Stream {
    name: &'static str,
    /// The only attempt of interest, if there is one.
    only: Option<u64>,
    /// The attempt that was printed so far.
    attempt: Option<u64>,
    offset: u64,
    complete: bool,
}

/// A piece of output as the server hands it out.
struct Piece {
    attempt: u64,
    size: u64,
    complete: bool,
    bytes: Vec<u8>,
}

impl Logs {
    pub(crate) fn run(self, client: &Client) -> anyhow::Result<u8> {
        let attempt = self.job.attempt.map(u64::from);
        let mut stream = Stream::new(if self.stderr { "stderr" } else { "stdout" }, attempt);
        let job = self.job.id;
        if self.follow {
            detach_on_interrupt(job);
        }
        if let Some(tail) = self.tail {
            stream.offset = self.size(client, &stream)?.saturating_sub(tail);
        }
        let out = &mut io::stdout();
        if !self.follow {
            while stream.advance(client, job, out)? > 0 {}
            return Ok(0);
        }
        watch(client, job, attempt.is_some(), &mut [(stream, out)])?;
        Ok(0)
    }

    fn size(&self, client: &Client, stream: &Stream) -> Result<u64, CallError> {
        match stream.fetch(client, self.job.id, 0, 0) {
            Ok(piece) => Ok(piece.size),
            Err(error) if self.follow && error.kind() == "no-run-yet" => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Prints both streams of a job, each to its own, until it has ended; the exit code is the job's.
pub(crate) fn follow(client: &Client, job: u64) -> anyhow::Result<u8> {
    detach_on_interrupt(job);
    let (out, err) = (&mut io::stdout(), &mut io::stderr());
    let mut streams: [(Stream, &mut dyn Write); 2] =
        [(Stream::new("stdout", None), out), (Stream::new("stderr", None), err)];
    let ended = watch(client, job, false, &mut streams)?;
    Ok(conclude(&ended))
}

/// Prints what comes until the job is final and its output was printed to the end. With `one_attempt` a later attempt is not of interest.
fn watch(
    client: &Client,
    job: u64,
    one_attempt: bool,
    streams: &mut [(Stream, &mut dyn Write)],
) -> anyhow::Result<Job> {
    let mut pause = LOOK_MIN;
    let mut final_since: Option<Instant> = None;
    let mut told = false;
    loop {
        // First the job, then its output: what was written before it became final is then surely there.
        let now: Job = client.patiently(|| client.get(&path(job, "")))?;
        let is_final = now.status.0.is_final();
        let mut trouble = None;
        let mut printed = 0;
        for (stream, out) in streams.iter_mut() {
            printed += match client_patience(stream.advance(client, job, out))? {
                Ok(bytes) => bytes,
                Err(why) => {
                    trouble = Some(why);
                    0
                }
            };
        }
        let complete = streams.iter().all(|(stream, _)| stream.complete);
        if complete && (is_final || one_attempt) || is_final && now.runs.is_empty() {
            return Ok(now);
        }
        let waited = is_final.then(|| final_since.get_or_insert_with(Instant::now).elapsed());
        if waited.is_some_and(|waited| waited > REST_MAX && printed == 0) {
            let why = trouble.unwrap_or_else(|| {
                "its files still grow: something that it left running writes on".to_owned()
            });
            eprintln!(
                "lastword: the end of the output of job {job} cannot be read now: {why}. Later: lastword job logs {job}"
            );
            return Ok(now);
        }
        if let Some(why) = trouble.filter(|_| !told) {
            eprintln!("lastword: {why}; the output follows when it can be read");
            told = true;
        }
        pause = if printed > 0 { LOOK_MIN } else { (pause * 3 / 2).min(LOOK_MAX) };
        thread::sleep(pause);
    }
}

/// Sorts failures: what may pass is waited for (the text says why), a run that is not there yet is not even told.
fn client_patience(result: anyhow::Result<u64>) -> anyhow::Result<Result<u64, String>> {
    let error = match result {
        Ok(bytes) => return Ok(Ok(bytes)),
        Err(error) => error,
    };
    match error.downcast_ref::<CallError>() {
        Some(call) if call.kind() == "no-run-yet" => Ok(Ok(0)),
        Some(call) if call.may_pass() => Ok(Err(call.to_string())),
        Some(_) | None => Err(error),
    }
}

impl Stream {
    fn new(name: &'static str, only: Option<u64>) -> Stream {
        Stream { name, only, attempt: None, offset: 0, complete: false }
    }

    /// Prints the next pieces, up to the present end or a fair share; how many bytes were printed.
    fn advance(&mut self, client: &Client, job: u64, out: &mut dyn Write) -> anyhow::Result<u64> {
        let piece = self.fetch(client, job, self.offset, PIECE_BYTES)?;
        if self.attempt.is_some_and(|attempt| attempt != piece.attempt) {
            // Another attempt began meanwhile: its output begins anew.
            *self = Stream { attempt: Some(piece.attempt), ..Stream::new(self.name, self.only) };
            return self.advance(client, job, out);
        }
        self.attempt = Some(piece.attempt);
        out.write_all(&piece.bytes)?;
        out.flush()?;
        let bytes = piece.bytes.len() as u64;
        self.offset += bytes;
        self.complete = piece.complete && self.offset >= piece.size;
        Ok(bytes)
    }

    fn fetch(&self, client: &Client, job: u64, offset: u64, limit: u64) -> Result<Piece, CallError> {
        let only = self.only.map(|attempt| format!("&attempt={attempt}")).unwrap_or_default();
        let question = path(job, &format!("/output/{}?offset={offset}&limit={limit}{only}", self.name));
        let reply =
            client.reply(&Call { method: Method::GET, path: &question, body: None, repeatable: true })?;
        let missing = |header: &str| CallError::Garbled(format!("the header {header} is missing"));
        Ok(Piece {
            attempt: reply.number("x-attempt").ok_or_else(|| missing("X-Attempt"))?,
            size: reply.number("x-size").ok_or_else(|| missing("X-Size"))?,
            complete: reply.flag("x-complete"),
            bytes: reply.body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Place;
    use crate::fake;
    use api::{Run, Status, Time};

    fn piece(attempt: u32, size: u64, complete: bool, bytes: &str) -> String {
        let headers =
            format!("x-attempt: {attempt}\r\nx-size: {size}\r\nx-complete: {complete}\r\nx-offset: 0\r\n");
        fake::answer_with(200, &headers, bytes)
    }

    fn job(status: Status) -> String {
        let run = Run {
            run_id: "r".into(),
            attempt: 1,
            agent: "host1".into(),
            status: status.into(),
            exit_code: None,
            signal: None,
            witness: None,
            reason: None,
            placed_at: Some(Time { ms: 0 }),
            started_at: None,
            ended_at: None,
            cpu_ms: None,
            user_ms: None,
            system_ms: None,
            max_rss_kib: None,
            memory_peak_kib: None,
            read_bytes: None,
            written_bytes: None,
            oom_kills: None,
            context_switches: None,
            processes_peak: None,
            late_outcome: None,
        };
        let job = Job { status: status.into(), runs: vec![run], ..crate::job::tests::job() };
        serde_json::to_string(&job).unwrap()
    }

    fn followed(answers: Vec<String>) -> (String, Vec<String>) {
        let (urls, asked) = fake::server(answers);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let mut printed = Vec::new();
        watch(&client, 1042, false, &mut [(Stream::new("stdout", None), &mut printed)]).unwrap();
        (String::from_utf8(printed).unwrap(), asked.join().unwrap())
    }

    #[test]
    fn output_is_followed_from_where_it_was_read_to_until_it_is_complete() {
        let (printed, asked) = followed(vec![
            fake::answer(200, &job(Status::Queued)),
            fake::problem(404, "no-run-yet", "no run yet"),
            fake::answer(200, &job(Status::Running)),
            piece(1, 3, false, "abc"),
            fake::answer(200, &job(Status::Running)),
            fake::problem(503, "agent-away", "host1 is away"),
            fake::answer(200, &job(Status::Completed)),
            piece(1, 5, true, "de"),
        ]);
        assert_eq!(printed, "abcde");
        assert!(asked[7].contains("offset=3"), "{}", asked[7]);
    }

    #[test]
    fn the_output_of_another_attempt_begins_anew() {
        let (printed, asked) = followed(vec![
            fake::answer(200, &job(Status::Running)),
            piece(1, 3, false, "abc"),
            fake::answer(200, &job(Status::Completed)),
            piece(2, 9, false, "nonsense"),
            piece(2, 2, true, "xy"),
        ]);
        assert_eq!(printed, "abcxy");
        assert!(asked[4].contains("offset=0"), "{}", asked[4]);
    }
}
