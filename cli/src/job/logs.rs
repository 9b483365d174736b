//! Prints a job's output: what is there, or live until it has ended. Output stays with the agent; the server passes it on.

use super::wait::{conclude, detach_on_interrupt};
use super::{JobRef, path};
use crate::client::{Call, CallError, Client, Download};
use crate::exit::{self, failure};
use crate::progress::Progress;
use anyhow::Context;
use api::Job;
use clap::Args;
use std::io::{self, IsTerminal, Read, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What is read at once.
const READ_BYTES: usize = 64 << 10;
/// A followed answer ends after this time, and the next one goes on where it ended: so nobody waits for ever for a server that is gone.
const FOLLOW_WAIT: &str = "60s";
/// Between two questions about a job whose output does not come: from the first to the second, growing.
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

/// What an answer says of the output in it.
struct Head {
    attempt: u64,
    /// Where it begins.
    offset: u64,
    /// The size of the whole when it began.
    size: u64,
    /// There will be no more than that.
    complete: bool,
    /// What the output limit left out of the whole; the answer skips it.
    gap: Option<Range<u64>>,
}

/// What was printed of one answer.
struct Printed {
    bytes: u64,
    /// To its end; else it broke off.
    whole: bool,
}

/// What all streams of a job share while they are followed.
#[derive(Default)]
struct Told {
    trouble: AtomicBool,
    no_rest: AtomicBool,
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
        if self.follow {
            watch(client, job, stream, out, &Told::default())?;
            return Ok(0);
        }
        loop {
            let printed = stream.advance(client, job, false, out)?;
            if printed.whole {
                return Ok(0);
            }
            if printed.bytes == 0 {
                anyhow::bail!(failure(exit::AWAY, "the answer broke off; try again"));
            }
        }
    }

    fn size(&self, client: &Client, stream: &Stream) -> Result<u64, CallError> {
        match stream.open(client, self.job.id, "&limit=0") {
            Ok((head, _)) => Ok(head.size),
            Err(error) if self.follow && error.kind() == "no-run-yet" => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Prints both streams of a job, each to its own, until it has ended; the exit code is the job's.
pub(crate) fn follow(client: &Client, job: u64) -> anyhow::Result<u8> {
    detach_on_interrupt(job);
    let (told, (done, ended)) = (Arc::new(Told::default()), mpsc::channel());
    for name in ["stdout", "stderr"] {
        let (client, told, done) = (client.clone(), Arc::clone(&told), done.clone());
        let print = move || {
            let (mut out, mut err) = (io::stdout(), io::stderr());
            let out: &mut dyn Write = if name == "stdout" { &mut out } else { &mut err };
            let ended = watch(&client, job, Stream::new(name, None), out, &told);
            let _ = done.send(ended); // nobody waits for it if the other one failed
        };
        thread::Builder::new().name(name.to_owned()).spawn(print)?;
    }
    drop(done);
    let mut last = None;
    for ended in ended {
        last = Some(ended?);
    }
    last.as_ref().map(conclude).context("a thread that printed output ended early")
}

/// Prints what comes until the job is final and its output was printed to the end. If one attempt is of interest, a later one is not.
fn watch(
    client: &Client,
    job: u64,
    mut stream: Stream,
    out: &mut dyn Write,
    told: &Told,
) -> anyhow::Result<Job> {
    let mut pause = LOOK_MIN;
    let mut final_since: Option<Instant> = None;
    loop {
        // First the job, then its output: what was written before it became final is then surely there.
        let now: Job = client.patiently(|| client.get(&path(job, "")))?;
        let is_final = now.status.0.is_final();
        let (bytes, trouble) = match patience(stream.advance(client, job, true, out))? {
            Ok(printed) => (printed.bytes, None),
            Err(why) => (0, Some(why)),
        };
        if stream.complete && (is_final || stream.only.is_some()) || is_final && now.runs.is_empty() {
            return Ok(now);
        }
        let waited = is_final.then(|| final_since.get_or_insert_with(Instant::now).elapsed());
        if waited.is_some_and(|waited| waited > REST_MAX && bytes == 0) {
            if !told.no_rest.swap(true, Ordering::Relaxed) {
                let why = trouble.unwrap_or_else(|| "it breaks off".to_owned());
                eprintln!(
                    "lastword: the end of the output of job {job} cannot be read now: {why}. Later: lastword job logs {job}"
                );
            }
            return Ok(now);
        }
        if let Some(why) = trouble.filter(|_| !told.trouble.swap(true, Ordering::Relaxed)) {
            eprintln!("lastword: {why}; the output follows when it can be read");
        }
        pause = if bytes > 0 { LOOK_MIN } else { (pause * 3 / 2).min(LOOK_MAX) };
        thread::sleep(pause);
    }
}

/// Sorts failures: what may pass is waited for (the text says why), a run that is not there yet is not even told.
fn patience(result: anyhow::Result<Printed>) -> anyhow::Result<Result<Printed, String>> {
    let error = match result {
        Ok(printed) => return Ok(Ok(printed)),
        Err(error) => error,
    };
    match error.downcast_ref::<CallError>() {
        Some(call) if call.kind() == "no-run-yet" => Ok(Ok(Printed { bytes: 0, whole: true })),
        Some(call) if call.may_pass() => Ok(Err(call.to_string())),
        Some(_) | None => Err(error),
    }
}

impl Stream {
    fn new(name: &'static str, only: Option<u64>) -> Stream {
        Stream { name, only, attempt: None, offset: 0, complete: false }
    }

    /// Prints one answer as it comes, from where the last one ended.
    fn advance(
        &mut self,
        client: &Client,
        job: u64,
        follow: bool,
        out: &mut dyn Write,
    ) -> anyhow::Result<Printed> {
        let more = if follow { format!("&follow=true&wait={FOLLOW_WAIT}") } else { String::new() };
        let (head, mut body) = self.open(client, job, &more)?;
        if self.attempt.is_some_and(|attempt| attempt != head.attempt) {
            // Another attempt began meanwhile: its output begins anew.
            *self = Stream { attempt: Some(head.attempt), ..Stream::new(self.name, self.only) };
            return self.advance(client, job, follow, out);
        }
        self.attempt = Some(head.attempt);
        if head.offset < self.offset {
            eprintln!(
                "lastword: the output of job {job} became shorter; it goes on from byte {}",
                head.offset
            );
            self.offset = head.offset;
        }
        if head.gap.as_ref().is_some_and(|gap| gap.contains(&self.offset)) {
            self.skip_to(head.offset, out)?;
        }
        let what = format!("{} of job {job}", self.name);
        // What is followed has no end yet.
        let mut progress = Progress::new(&what, head.size, follow || io::stdout().is_terminal());
        let (mut piece, mut bytes) = (vec![0; READ_BYTES], 0);
        let whole = loop {
            match body.read(&mut piece) {
                Ok(0) => break true,
                Ok(read) => {
                    self.print(&piece[..read], head.gap.as_ref(), out)?;
                    bytes += read as u64;
                    progress.at(self.offset);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_broken_off) => break false,
            }
        };
        self.complete = whole && head.complete && self.offset >= head.size;
        Ok(Printed { bytes, whole })
    }

    /// Prints the next bytes of an answer; where the gap is, says so.
    fn print(&mut self, piece: &[u8], gap: Option<&Range<u64>>, out: &mut dyn Write) -> io::Result<()> {
        let before_gap = gap.and_then(|gap| gap.start.checked_sub(self.offset));
        let before_gap = before_gap.and_then(|bytes| usize::try_from(bytes).ok());
        let (before, after) = piece.split_at(before_gap.unwrap_or(usize::MAX).min(piece.len()));
        out.write_all(before)?;
        self.offset += before.len() as u64;
        if let Some(gap) = gap.filter(|_| !after.is_empty()) {
            self.skip_to(gap.end, out)?;
            out.write_all(after)?;
            self.offset += after.len() as u64;
        }
        out.flush()
    }

    /// Says that what is before this byte was left out.
    fn skip_to(&mut self, offset: u64, out: &mut dyn Write) -> io::Result<()> {
        let left_out = offset.saturating_sub(self.offset);
        self.offset = offset;
        if left_out == 0 {
            return Ok(());
        }
        writeln!(out, "\n… {left_out} bytes left out by the output limit …")
    }

    /// Asks for the output from where it was printed to.
    fn open(&self, client: &Client, job: u64, more: &str) -> Result<(Head, Box<dyn Read>), CallError> {
        let only = self.only.map(|attempt| format!("&attempt={attempt}")).unwrap_or_default();
        let question = path(job, &format!("/output/{}?offset={}{only}{more}", self.name, self.offset));
        let Download { reply, body } =
            client.download(&Call { path: &question, repeatable: true, ..Call::default() })?;
        let number = |header: &str| {
            reply.number(header).ok_or_else(|| CallError::Garbled(format!("the header {header} is missing")))
        };
        let head = Head {
            attempt: number("x-attempt")?,
            offset: number("x-offset")?,
            size: number("x-size")?,
            complete: reply.flag("x-complete"),
            gap: reply.range("x-gap"),
        };
        Ok((head, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Place;
    use crate::fake;
    use api::{Run, Status};

    fn piece(attempt: u32, offset: u64, size: u64, complete: bool, bytes: &str) -> String {
        let headers = format!(
            "x-attempt: {attempt}\r\nx-size: {size}\r\nx-complete: {complete}\r\nx-offset: {offset}\r\n"
        );
        fake::answer_with(200, &headers, bytes)
    }

    fn job(status: Status) -> String {
        let run = Run { status: status.into(), ..crate::job::tests::run() };
        let job = Job { status: status.into(), runs: vec![run], ..crate::job::tests::job() };
        serde_json::to_string(&job).unwrap()
    }

    fn followed(answers: Vec<String>) -> (String, Vec<String>) {
        let (urls, asked) = fake::server(answers);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let mut printed = Vec::new();
        watch(&client, 1042, Stream::new("stdout", None), &mut printed, &Told::default()).unwrap();
        (String::from_utf8(printed).unwrap(), asked.join().unwrap())
    }

    #[test]
    fn output_is_followed_from_where_it_was_read_to_until_it_is_complete() {
        let (printed, asked) = followed(vec![
            fake::answer(200, &job(Status::Queued)),
            fake::problem(404, "no-run-yet", "no run yet"),
            fake::answer(200, &job(Status::Running)),
            piece(1, 0, 3, false, "abc"),
            fake::answer(200, &job(Status::Running)),
            fake::problem(503, "agent-away", "host1 is away"),
            fake::answer(200, &job(Status::Completed)),
            piece(1, 3, 5, true, "de"),
        ]);
        assert_eq!(printed, "abcde");
        assert!(asked[7].contains("offset=3"), "{}", asked[7]);
    }

    #[test]
    fn an_answer_that_breaks_off_is_taken_up_where_it_broke() {
        let broken = piece(1, 0, 9, false, "abc").replace("content-length: 3", "content-length: 9");
        let (printed, asked) = followed(vec![
            fake::answer(200, &job(Status::Running)),
            broken,
            fake::answer(200, &job(Status::Completed)),
            piece(1, 3, 5, true, "de"),
        ]);
        assert_eq!(printed, "abcde");
        assert!(asked[3].contains("offset=3") && asked[3].contains("follow=true"), "{}", asked[3]);
    }

    #[test]
    fn output_that_became_shorter_is_printed_on_from_its_end() {
        let (printed, _) = followed(vec![
            fake::answer(200, &job(Status::Running)),
            piece(1, 0, 5, false, "abcde"),
            fake::answer(200, &job(Status::Completed)),
            piece(1, 2, 2, true, ""),
        ]);
        assert_eq!(printed, "abcde");
    }

    #[test]
    fn what_the_output_limit_left_out_is_told_where_it_was() {
        let with_gap =
            |piece: String, gap: &str| piece.replacen("x-attempt", &format!("x-gap: {gap}\r\nx-attempt"), 1);
        let (printed, asked) = followed(vec![
            fake::answer(200, &job(Status::Running)),
            piece(1, 0, 4, false, "abcd"),
            fake::answer(200, &job(Status::Running)),
            with_gap(piece(1, 4, 20, false, "ef"), "6-15"),
            fake::answer(200, &job(Status::Running)),
            with_gap(piece(1, 18, 20, false, "uv"), "6-18"),
            fake::answer(200, &job(Status::Completed)),
            with_gap(piece(1, 20, 22, true, "wx"), "6-18"),
        ]);
        assert_eq!(printed, "abcdef\n… 12 bytes left out by the output limit …\nuvwx");
        assert!(asked[5].contains("offset=6") && asked[7].contains("offset=20"), "{asked:?}");
    }

    #[test]
    fn an_answer_that_skips_a_gap_is_printed_with_a_line_in_its_place() {
        let head = "x-attempt: 1\r\nx-size: 1000\r\nx-complete: true\r\nx-offset: 0\r\nx-gap: 3-998\r\n";
        let (printed, _) =
            followed(vec![fake::answer(200, &job(Status::Completed)), fake::answer_with(200, head, "abcyz")]);
        assert_eq!(printed, "abc\n… 995 bytes left out by the output limit …\nyz");
    }

    #[test]
    fn the_output_of_another_attempt_begins_anew() {
        let (printed, asked) = followed(vec![
            fake::answer(200, &job(Status::Running)),
            piece(1, 0, 3, false, "abc"),
            fake::answer(200, &job(Status::Completed)),
            piece(2, 3, 9, false, "nonsense"),
            piece(2, 0, 2, true, "xy"),
        ]);
        assert_eq!(printed, "abcxy");
        assert!(asked[4].contains("offset=0"), "{}", asked[4]);
    }
}
