//! An agent without a host: it accepts, starts and ends every run at once with exit code 7, and has something to read.

use super::Server;
use job::{End, Outcome, Witness};
use link::{Endpoint, Role, Secret, Secrets};
use prost::Message;
use protocol::Frame;
use protocol::message::{
    Accepted, AgentHello, Answer, AnswerBody, Ended, Fact, FactBody, Facts, FileRange, Ledger, OutputData,
    Query, QueryBody, RunFact, Start, Started,
};
use protocol::stream::{Found, Opening, Sources};
use std::sync::{Arc, LazyLock};
use tokio::task::JoinHandle;

/// What every run wrote: more than one piece.
pub(super) fn output() -> &'static [u8] {
    static OUTPUT: LazyLock<Vec<u8>> = LazyLock::new(|| (0..1_000_000u32).map(|n| (n % 251) as u8).collect());
    &OUTPUT
}

/// The one file that every run left, with the same content.
pub(super) const FILE: &str = "report/sum.pdf";

const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct OneSecret;

impl Secrets for OneSecret {
    fn of_peer(&self, _name: &str) -> Vec<Secret> {
        vec![Secret::from_bytes(SECRET.as_bytes().to_vec()).unwrap()]
    }
}

/// Makes agent `host1` known and lets it dial in. It never ends a run if `ends` is false.
pub(super) fn start(server: &Server, ends: bool) -> JoinHandle<()> {
    let add = serde_json::json!({"name": "host1", "dials_in": true, "secret": SECRET, "slots": 4});
    let answer = server.post("/api/v1/agents", add);
    assert_eq!(answer.status, 201, "{}", answer.json());
    let port = server.agents.port();
    let task = server.runtime.spawn(live(port, ends));
    server.until("/api/v1/agents/host1", |agent| agent["connected"] == true);
    task
}

async fn live(port: u16, ends: bool) {
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
    let (mut facts, mut sources): (Vec<RunFact>, _) = (Vec::new(), Sources::default());
    while let Ok(frame) = link.receiver.recv().await {
        let answers = if let Frame::Start(start) = frame {
            let new = life(&start, ends);
            facts.extend(new.clone());
            vec![Frame::Facts(Facts { facts: new })]
        } else if let Frame::Query(query) = frame {
            vec![Frame::Answer(reply(&query, &facts))]
        } else {
            stream(&mut sources, &frame, ends)
        };
        for answer in answers {
            if link.sender.send(answer).await.is_err() {
                return;
            }
        }
    }
}

/// What is to be sent of the streams now. Without an end no run is complete, and nothing is ever added to what was written.
fn stream(sources: &mut Sources, frame: &Frame, complete: bool) -> Vec<Frame> {
    if let Frame::StreamOpen(open) = frame {
        let Opening { stream_id, wanted, .. } = Opening::read(open).unwrap();
        sources.on_open(stream_id, wanted).unwrap();
    } else if let Frame::StreamGrant(grant) = frame {
        sources.on_grant(grant.stream_id.unwrap(), grant.granted.unwrap());
    } else if let Frame::StreamReceipt(receipt) = frame {
        sources.on_receipt(0, receipt.received.unwrap()).unwrap();
    } else if let Frame::StreamCancel(cancel) = frame {
        sources.on_cancel(cancel.stream_id.unwrap());
    }
    let (whole, mut frames) = (output(), Vec::new());
    while let Some(look) = sources.next(0) {
        let from = usize::try_from(look.offset).unwrap().min(whole.len());
        let to = whole.len().min(from + look.bytes_max);
        let found = Found { data: whole[from..to].to_vec(), size: whole.len() as u64, complete, gap: None };
        frames.extend(sources.on_found(0, look.stream_id, found));
    }
    frames
}

fn life(start: &Start, ends: bool) -> Vec<RunFact> {
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
    if ends {
        bodies.push(FactBody::Ended(Ended::from(&outcome)));
    }
    let fact = |(seq, body)| RunFact {
        run_id: start.run_id.clone(),
        seq: Some(seq),
        fact: Fact::new(1_000 * i64::try_from(seq).unwrap(), body).encode_to_vec(),
    };
    (1..).zip(bodies).map(fact).collect()
}

fn reply(query: &Query, facts: &[RunFact]) -> Answer {
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
        QueryBody::Output(_) => AnswerBody::Failed("who speaks protocol 2 opens a stream".into()),
        QueryBody::File(FileRange { name, .. }) if name != FILE => AnswerBody::Failed("no such file".into()),
        QueryBody::File(FileRange { offset, bytes_max, .. }) => {
            let whole = output();
            let from = usize::try_from(offset.unwrap()).unwrap().min(whole.len());
            let to = whole.len().min(from + bytes_max.unwrap() as usize);
            let data = whole[from..to].to_vec();
            AnswerBody::Output(OutputData { offset, data, size: Some(whole.len() as u64), complete: true })
        }
    };
    Answer { query_id: query.query_id, body: Some(body) }
}
