//! An agent without a host: it accepts, starts and ends every run at once with exit code 7, and has something to read: output, and files that it
//! kept.

use super::Server;
use job::{End, Outcome, Witness};
use link::{Endpoint, Role, Secret, Secrets};
use prost::Message;
use protocol::Frame;
use protocol::message::{
    Accepted, AgentHello, Answer, AnswerBody, Captured, Ended, Fact, FactBody, Facts, FilesStored, Ledger,
    Noted, Query, QueryBody, RunFact, Start, Started,
};
use protocol::stream::{Found, Opening, Sources, Subject, Which};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use tokio::task::JoinHandle;

/// What every run wrote: more than one piece.
pub(super) fn output() -> &'static [u8] {
    static OUTPUT: LazyLock<Vec<u8>> = LazyLock::new(|| (0..1_000_000u32).map(|n| (n % 251) as u8).collect());
    &OUTPUT
}

/// A file that the agent kept of every run.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) name: &'static str,
    /// What it was when it was kept.
    pub(super) content: Vec<u8>,
    pub(super) now: Now,
}

/// What became of it since.
#[derive(Clone)]
pub(super) enum Now {
    Same,
    Other(Vec<u8>),
    Gone,
    Failing,
}

/// What the agent does.
#[derive(Clone, Default)]
pub(super) struct Script {
    /// It never ends a run if this is false.
    pub(super) ends: bool,
    pub(super) files: Arc<Mutex<Vec<Kept>>>,
    /// How many files of a run the server said to have, each time.
    pub(super) words: Arc<Mutex<Vec<u64>>>,
}

impl Script {
    pub(super) fn with_files(files: Vec<Kept>) -> Script {
        Script { ends: true, files: Arc::new(Mutex::new(files)), words: Arc::default() }
    }

    /// Something becomes of the file of that name.
    pub(super) fn change(&self, name: &str, now: Now) {
        let mut files = self.files.lock().unwrap();
        files.iter_mut().filter(|file| file.name == name).for_each(|file| file.now = now.clone());
    }

    fn find(&self, name: &str) -> Kept {
        self.files.lock().unwrap().iter().find(|file| file.name == name).unwrap().clone()
    }
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct OneSecret;

impl Secrets for OneSecret {
    fn of_peer(&self, _name: &str) -> Vec<Secret> {
        vec![Secret::from_bytes(SECRET.as_bytes().to_vec()).unwrap()]
    }
}

/// Makes agent `host1` known and lets it dial in. It never ends a run if `ends` is false.
pub(super) fn start(server: &Server, ends: bool) -> JoinHandle<()> {
    introduce(server);
    connect(server, &Script { ends, ..Script::default() })
}

/// Makes agent `host1` known.
pub(super) fn introduce(server: &Server) {
    let add = serde_json::json!({"name": "host1", "dials_in": true, "secret": SECRET, "slots": 4});
    let answer = server.post("/api/v1/agents", add);
    assert_eq!(answer.status, 201, "{}", answer.json());
}

/// Lets it dial in.
pub(super) fn connect(server: &Server, script: &Script) -> JoinHandle<()> {
    let port = server.agents.port();
    let task = server.runtime.spawn(live(port, script.clone()));
    server.until("/api/v1/agents/host1", |agent| agent["connected"] == true);
    task
}

async fn live(port: u16, script: Script) {
    let endpoint =
        Endpoint::new(Role::Agent, "host1".into(), Arc::new(OneSecret), link::Options::default()).unwrap();
    let mut link = endpoint.dial("127.0.0.1", port, Some("a")).await.unwrap();
    let hello = AgentHello {
        agent_id: Some(vec![1; 16]),
        incarnation: Some(1),
        boot_id: Some(vec![2; 16]),
        epoch: Some(0),
        software: "scripted agent".into(),
        ..AgentHello::default()
    };
    link.sender.send(Frame::AgentHello(hello)).await.unwrap();
    let mut facts: Vec<RunFact> = Vec::new();
    let mut streams = Streams { script: script.clone(), sources: Sources::default(), read: HashMap::new() };
    while let Ok(frame) = link.receiver.recv().await {
        let answers = if let Frame::Start(start) = frame {
            let new = life(&start, &script);
            facts.extend(new.clone());
            vec![Frame::Facts(Facts { facts: new })]
        } else if let Frame::Query(query) = frame {
            vec![Frame::Answer(reply(&query, &facts, &script))]
        } else {
            streams.on(&frame)
        };
        for answer in answers {
            if link.sender.send(answer).await.is_err() {
                return;
            }
        }
    }
}

/// What is read, each stream from its file.
struct Streams {
    script: Script,
    sources: Sources,
    read: HashMap<u64, Option<Which>>,
}

impl Streams {
    /// What is to be sent now. Without an end no run is complete, and nothing is ever added to what was written.
    fn on(&mut self, frame: &Frame) -> Vec<Frame> {
        if let Frame::StreamOpen(open) = frame {
            let Opening { stream_id, subject, wanted } = Opening::read(open).unwrap();
            let file = match subject {
                Subject::File { file, .. } => file,
                Subject::Trace { .. } => None,
            };
            self.read.insert(stream_id, file);
            self.sources.on_open(stream_id, wanted).unwrap();
        } else if let Frame::StreamGrant(grant) = frame {
            self.sources.on_grant(grant.stream_id.unwrap(), grant.granted.unwrap());
        } else if let Frame::StreamReceipt(receipt) = frame {
            self.sources.on_receipt(0, receipt.received.unwrap()).unwrap();
        } else if let Frame::StreamCancel(cancel) = frame {
            self.sources.on_cancel(cancel.stream_id.unwrap());
        }
        let mut frames = Vec::new();
        while let Some(look) = self.sources.next(0) {
            let whole = match &self.read[&look.stream_id] {
                Some(Which::Kept(name)) => self.script.find(name),
                Some(Which::Output(_)) | None => {
                    Kept { name: "", content: output().to_vec(), now: Now::Same }
                }
            };
            let whole = match whole.now {
                Now::Same => whole.content,
                Now::Other(content) => content,
                gone @ (Now::Gone | Now::Failing) => {
                    let gone = matches!(gone, Now::Gone);
                    frames.extend(self.sources.on_failed(look.stream_id, "it is not there".into(), gone));
                    continue;
                }
            };
            let (complete, size) = (self.script.ends, whole.len() as u64);
            let from = usize::try_from(look.offset).unwrap().min(whole.len());
            let to = whole.len().min(from + look.bytes_max);
            let found = Found { data: whole[from..to].to_vec(), size, complete, gap: None };
            frames.extend(self.sources.on_found(0, look.stream_id, found));
        }
        frames
    }
}

fn life(start: &Start, script: &Script) -> Vec<RunFact> {
    let outcome = Outcome::Ended {
        end: End::Exited { code: 7 },
        cause: None,
        witness: Witness::JobProcessor,
        usage: None,
    };
    let mut bodies = vec![
        FactBody::Accepted(Accepted { boot_id: Some(vec![2; 16]) }),
        FactBody::Started(Started { pid: Some(42), boot_id: Some(vec![2; 16]), ..Started::default() }),
    ];
    if script.ends {
        bodies.push(FactBody::Ended(Ended::from(&outcome)));
    }
    for file in script.files.lock().unwrap().iter() {
        bodies.push(FactBody::Captured(Captured {
            name: file.name.to_owned(),
            bytes: Some(file.content.len() as u64),
            sha256: Sha256::digest(&file.content).to_vec(),
        }));
    }
    let fact = |(seq, body)| RunFact {
        run_id: start.run_id.clone(),
        seq: Some(seq),
        fact: Fact::new(1_000 * i64::try_from(seq).unwrap(), body).encode_to_vec(),
    };
    (1..).zip(bodies).map(fact).collect()
}

fn reply(query: &Query, facts: &[RunFact], script: &Script) -> Answer {
    let records: Vec<RunFact> = facts.iter().filter(|fact| fact.run_id == query.run_id).cloned().collect();
    let body = match query.body.clone().unwrap() {
        QueryBody::Ledger(_) if records.is_empty() => {
            AnswerBody::Ledger(Ledger { place: "no record".into(), ..Ledger::default() })
        }
        QueryBody::Ledger(_) => AnswerBody::Ledger(Ledger {
            place: "settled".into(),
            locked: false,
            acked_seq: Some(3),
            records,
            spec: None,
        }),
        QueryBody::Output(_) | QueryBody::File(_) => {
            AnswerBody::Failed("who speaks protocol 2 opens a stream".into())
        }
        QueryBody::FilesStored(FilesStored { files }) => {
            script.words.lock().unwrap().push(files.unwrap());
            AnswerBody::Noted(Noted { complete: true })
        }
    };
    Answer { query_id: query.query_id, body: Some(body) }
}
