//! Follows what happens, as it happens. When the stream breaks it is opened again from behind the last event that was seen: nothing is missed,
//! nothing is printed twice.

use crate::client::{Call, Client, encode};
use crate::output::{Format, Output, line, plain};
use api::{Event, EventList, Job, Status};
use clap::Args;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

/// What to follow.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword watch                                   everything
  lastword watch 1042 1043                         two jobs, until both have ended
  lastword watch --queue nightly --kind job.status -o jsonl
  lastword watch --kind agent,disk --after 0       also all that is still on record
Goes on while the server is away, and misses nothing. Kinds are job.status, run.outcome, agent.lost, queue.held, …; a family
(job, run, agent, queue, server, disk, damage) stands for all of its kinds.")]
pub(crate) struct Watch {
    /// Jobs, by their numbers; ends when all of them have ended.
    #[arg(value_name = "JOB")]
    pub(crate) jobs: Vec<u64>,
    /// Only this queue and its jobs; may be given several times.
    #[arg(long = "queue", value_name = "QUEUE")]
    pub(crate) queues: Vec<String>,
    /// Only these kinds or families of events, separated by commas.
    #[arg(long = "kind", value_delimiter = ',', value_name = "KIND")]
    pub(crate) kinds: Vec<String>,
    /// Begin behind the event with this number, not now.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) after: Option<u64>,
}

/// What a stream brings.
#[derive(Debug, PartialEq)]
enum Word {
    /// Everything up to here was told.
    Place(u64),
    /// Something happened.
    Event(Box<Event>),
    /// Something between was lost, or the server lets go of us; the text says why.
    Remark(String),
}

impl Watch {
    pub(crate) fn run(self, client: &Client, output: &Output) -> anyhow::Result<u8> {
        // The place first: whatever happens after it is in the stream, whatever was before is in the jobs.
        let mut place = match self.after {
            Some(after) => after,
            None => newest(client)?,
        };
        let mut open: BTreeSet<u64> = BTreeSet::new();
        for job in &self.jobs {
            let job: Job = client.get(&format!("/api/v1/jobs/{job}"))?;
            if job.status.0.is_final() {
                eprintln!("lastword: job {} is over: {}", job.id, job.status);
            } else {
                open.insert(job.id);
            }
        }
        let path = self.path();
        while self.jobs.is_empty() || !open.is_empty() {
            let path = format!("{path}after={place}");
            let call = Call { path: &path, repeatable: true, ..Call::default() };
            let stream = client.patiently(|| client.download(&call))?;
            let lines = BufReader::new(stream.body).lines();
            let mut words = Words { lines, id: None, name: String::new() };
            for word in &mut words {
                match word {
                    Word::Place(number) => place = number,
                    Word::Remark(text) => eprintln!("lastword: {text}"),
                    Word::Event(event) => {
                        place = event.number;
                        print(&event, output)?;
                        if let Some(job) = ended(&event)
                            && open.remove(&job)
                            && open.is_empty()
                        {
                            return Ok(0);
                        }
                    }
                }
            }
        }
        Ok(0)
    }

    /// The place is still to be added.
    fn path(&self) -> String {
        let jobs: Vec<String> = self.jobs.iter().map(u64::to_string).collect();
        let parts = [("job", jobs), ("queue", self.queues.clone()), ("kind", self.kinds.clone())];
        let parts = parts.into_iter().filter(|(_, words)| !words.is_empty());
        let words: String =
            parts.map(|(name, words)| format!("{name}={}&", encode(&words.join(",")))).collect();
        format!("/api/v1/events?{words}")
    }
}

/// The number of the newest event.
fn newest(client: &Client) -> anyhow::Result<u64> {
    let page: EventList = client.get("/api/v1/events/list?limit=1")?;
    Ok(page.items.first().map_or(0, |event| event.number))
}

/// The job that is over by this event.
fn ended(event: &Event) -> Option<u64> {
    let status: Status = event.data.get("status")?.as_str()?.parse().ok()?;
    let job = event.object.strip_prefix("job/")?.parse().ok()?;
    (event.kind == "job.status" && status.is_final()).then_some(job)
}

fn print(event: &Event, output: &Output) -> anyhow::Result<()> {
    match output.format() {
        Format::Json | Format::Jsonl => line(&serde_json::to_string(event)?),
        Format::Name => line(&event.number.to_string()),
        Format::Table | Format::Wide => {
            let mark = if event.severity == "info" { String::new() } else { format!("{}: ", event.severity) };
            let head = format!("{}  {:<16}", event.at.to_seconds(), event.object);
            line(&plain(&format!("{head}  {:<14}  {mark}{}", event.kind, event.text)))
        }
    }
}

/// The words of a stream of server-sent events, until it breaks.
struct Words<L> {
    lines: L,
    id: Option<u64>,
    name: String,
}

impl<L: Iterator<Item = std::io::Result<String>>> Iterator for Words<L> {
    type Item = Word;
    fn next(&mut self) -> Option<Word> {
        loop {
            let text = self.lines.next()?.ok()?;
            if let Some(id) = text.strip_prefix("id: ") {
                self.id = id.parse().ok();
            } else if let Some(name) = text.strip_prefix("event: ") {
                name.clone_into(&mut self.name);
            } else if let Some(data) = text.strip_prefix("data: ") {
                let name = std::mem::take(&mut self.name);
                if name != "gap" {
                    self.id = None;
                }
                return Some(match name.as_str() {
                    "gap" | "cut-off" => Word::Remark(remark(data)),
                    _ => Word::Event(Box::new(serde_json::from_str(data).ok()?)),
                });
            } else if let Some(id) = self.id.take().filter(|_| text.is_empty()) {
                return Some(Word::Place(id));
            }
        }
    }
}

fn remark(data: &str) -> String {
    let text = serde_json::from_str(data).ok().and_then(|data: serde_json::Value| {
        data.get("text").and_then(|text| text.as_str()).map(str::to_owned)
    });
    text.unwrap_or_else(|| data.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Place;
    use crate::fake;

    fn event(number: u64, status: &str) -> String {
        let event = Event {
            number,
            at: api::Time { ms: 0 },
            kind: "job.status".into(),
            severity: "info".into(),
            object: "job/7".into(),
            queue: None,
            text: status.into(),
            data: serde_json::json!({"status": status}).as_object().unwrap().clone(),
        };
        format!("id: {number}\nevent: job.status\ndata: {}\n\n", serde_json::to_string(&event).unwrap())
    }

    #[test]
    fn a_stream_that_breaks_is_opened_again_behind_the_last_event_and_ends_with_the_job() {
        let job = serde_json::to_string(&crate::job::tests::job()).unwrap();
        let first = format!("id: 3\n\n: still here\n\n{}", event(5, "Running"));
        let broken = "HTTP/1.1 200 x\r\ncontent-length: 9999\r\n\r\n".to_owned() + &first;
        let (urls, asked) = fake::server(vec![
            fake::answer(200, "{\"items\":[],\"next_cursor\":null}"),
            fake::answer(200, &job.replace("1042", "7")),
            broken,
            fake::answer(200, &format!("{}{}", event(6, "Completed"), event(7, "Completed"))),
        ]);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let watch = Watch { jobs: vec![7], queues: vec!["a&b".into()], kinds: Vec::new(), after: None };
        assert_eq!(watch.run(&client, &Output::new(Format::Name)).unwrap(), 0);
        let asked = asked.join().unwrap();
        assert!(asked[2].starts_with("GET /api/v1/events?job=7&queue=a%26b&after=0 "), "{}", asked[2]);
        assert!(asked[3].contains("&after=5 "), "{}", asked[3]);
    }

    #[test]
    fn places_events_and_remarks_are_told_apart() {
        let text = format!(
            "id: 3\n\nid: 4\nevent: gap\ndata: {{\"text\":\"gone\"}}\n\n: x\n\n{}",
            event(5, "Running")
        );
        let words =
            Words { lines: text.lines().map(|line| Ok(line.to_owned())), id: None, name: String::new() };
        let words: Vec<Word> = words.collect();
        assert_eq!(words[..3], [Word::Place(3), Word::Remark("gone".into()), Word::Place(4)]);
        assert!(matches!(&words[3], Word::Event(event) if event.number == 5));
        assert_eq!(words.len(), 4);
    }
}
