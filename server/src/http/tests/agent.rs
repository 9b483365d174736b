//! An agent without a host: it accepts, starts and ends every run at once with exit code 7, and has something to read.

use super::Server;
use job::{End, Outcome, Witness};
use link::{Endpoint, Role, Secret, Secrets};
use prost::Message;
use protocol::Frame;
use protocol::message::{
    Accepted, AgentHello, Answer, AnswerBody, Ended, Fact, FactBody, Facts, Ledger, OutputData, OutputRange,
    Query, QueryBody, RunFact, Start, Started,
};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// What every run wrote: more than one piece.
pub(super) fn output() -> Vec<u8> {
    (0..1_000_000u32).map(|n| (n % 251) as u8).collect()
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
    let mut facts: Vec<RunFact> = Vec::new();
    while let Ok(frame) = link.receiver.recv().await {
        let answer = if let Frame::Start(start) = frame {
            let new = life(&start, ends);
            facts.extend(new.clone());
            Frame::Facts(Facts { facts: new })
        } else if let Frame::Query(query) = frame {
            Frame::Answer(reply(&query, &facts))
        } else {
            continue;
        };
        if link.sender.send(answer).await.is_err() {
            return;
        }
    }
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
        QueryBody::Output(OutputRange { offset, bytes_max, .. }) => {
            let whole = output();
            let from = usize::try_from(offset.unwrap()).unwrap().min(whole.len());
            let to = whole.len().min(from + bytes_max.unwrap() as usize);
            let data = whole[from..to].to_vec();
            AnswerBody::Output(OutputData { offset, data, size: Some(whole.len() as u64), complete: true })
        }
    };
    Answer { query_id: query.query_id, body: Some(body) }
}
