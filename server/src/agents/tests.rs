//! Sessions over real links on loopback, with an agent that says what the test wants.

use super::*;
use crate::core::{self, Handle};
use crate::db::{Database, Sqlite};
use job::{End, JobId, Outcome, RunId, Status, Witness};
use link::{Endpoint, Link, Role, Secret, Secrets};
use prost::Message;
use protocol::convert::{run_id, run_id_field};
use protocol::frame::Frame;
use protocol::message::{
    Accepted, AgentHello, AgentState, Answer, AnswerBody, Ended, Fact, FactBody, Facts, Goodbye, Ledger,
    LedgerQuery, QueryBody, RunFact, ServerHello, Started,
};
use scheduler::{Dial, JobSpec, NewAgent};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

const DEADLINE: Duration = Duration::from_secs(30);

struct Server {
    handle: Handle,
    db: Arc<dyn Database>,
    directory: Directory,
    port: u16,
}

impl Server {
    async fn new(dir: &Path) -> Server {
        let db: Arc<dyn Database> = Arc::new(Sqlite::open(&dir.join("server.db")).unwrap());
        let agents = Agents::new(db.as_ref(), Options { node: "node".into(), allow: Vec::new() }).unwrap();
        let (handle, _) = core::spawn(Arc::clone(&db), agents.roster(), [3; 32]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let directory = agents.directory();
        tokio::spawn(agents.run(handle.clone(), Arc::clone(&db), Some(listener)));
        Server { handle, db, directory, port }
    }

    async fn add(&self, dial: Option<u16>) {
        let dial = dial.map(|port| Dial { host: "127.0.0.1".into(), port });
        let queues = vec!["default".into()];
        let agent = NewAgent { name: "host1".into(), slots: 2, dial, secret: vec![7; 32], queues };
        self.handle.add_agent(agent).await.unwrap();
    }

    async fn submit(&self) -> JobId {
        let spec =
            JobSpec { queue: "default".into(), command: vec![b"/bin/true".to_vec()], ..JobSpec::default() };
        self.handle.submit(vec![spec]).await.unwrap()[0].job
    }

    async fn until_connected(&self, connected: bool) {
        let wait = async {
            while self.handle.agent("host1").await.unwrap().connected != connected {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("in time");
    }
}

struct Shared(Vec<u8>);

impl Secrets for Shared {
    fn of_peer(&self, _: &str) -> Vec<Secret> {
        vec![Secret::from_bytes(self.0.clone()).unwrap()]
    }
}

fn endpoint(secret: u8) -> Arc<Endpoint> {
    let secrets = Arc::new(Shared(vec![secret; 32]));
    Endpoint::new(Role::Agent, "host1".into(), secrets, link::Options::default()).unwrap()
}

/// An agent that dialled in and exchanged accounts.
struct Agent {
    link: Link,
    hello: ServerHello,
}

impl Agent {
    async fn dial(server: &Server) -> Agent {
        let link = endpoint(7).dial("127.0.0.1", server.port, None).await.unwrap();
        Agent::greet(link, 1).await
    }

    async fn greet(link: Link, data_root: u8) -> Agent {
        Agent::greet_with(link, hello(data_root)).await
    }

    async fn greet_with(link: Link, account: AgentHello) -> Agent {
        let mut agent = Agent { link, hello: ServerHello::default() };
        agent.send(account).await;
        match agent.recv().await {
            Ok(Frame::ServerHello(hello)) => agent.hello = hello,
            other => panic!("{other:?}"),
        }
        agent
    }

    async fn send(&self, frame: impl Into<Frame>) {
        self.link.sender.send(frame.into()).await.unwrap();
    }

    async fn recv(&mut self) -> Result<Frame, link::LinkError> {
        tokio::time::timeout(DEADLINE, self.link.receiver.recv()).await.expect("in time")
    }

    async fn start(&mut self) -> RunId {
        let frame = self.recv().await.unwrap();
        let Frame::Start(start) = frame else { panic!("{frame:?}") };
        run_id("Start", &start.run_id).unwrap()
    }

    async fn say(&self, run: RunId, bodies: &[FactBody]) {
        let fact = |(seq, body): (u64, &FactBody)| RunFact {
            run_id: run_id_field(run),
            seq: Some(seq),
            fact: Fact::new(5, body.clone()).encode_to_vec(),
        };
        self.send(Facts { facts: (1..).zip(bodies).map(fact).collect() }).await;
    }
}

fn hello(data_root: u8) -> AgentHello {
    AgentHello {
        agent_id: Some(vec![data_root; 16]),
        incarnation: Some(1),
        boot_id: Some(vec![2; 16]),
        software: "scripted\nagent".into(),
        ..AgentHello::default()
    }
}

fn whole_life() -> [FactBody; 3] {
    let end = End::Exited { code: 0 };
    let outcome = Outcome::Ended { end, cause: None, witness: Witness::JobProcessor, usage: None };
    [
        FactBody::Accepted(Accepted::default()),
        FactBody::Started(Started::default()),
        FactBody::Ended(Ended::from(&outcome)),
    ]
}

#[tokio::test]
async fn an_agent_that_dials_in_gets_a_run_and_its_outcome_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let mut agent = Agent::dial(&server).await;
    assert_eq!(agent.hello.epoch, Some(1));
    let identity = server.db.identity();
    let position = agent.hello.position.clone().unwrap();
    assert_eq!(position.database_id, Some(identity.database_id.to_vec()));
    let job = server.submit().await;
    let run = agent.start().await;
    agent.say(run, &whole_life()).await;
    let Frame::Acks(acks) = agent.recv().await.unwrap() else { panic!("no acknowledgement") };
    assert_eq!((acks.acks.len(), acks.acks[0].seq), (1, Some(3)));
    assert!(acks.position.unwrap().commit.unwrap() <= server.db.commit_number());
    assert_eq!(server.db.job(job).unwrap().unwrap().status, Status::Completed);
    let view = server.handle.agent("host1").await.unwrap();
    assert_eq!((view.record.software.as_str(), view.connected), ("scripted agent", true));
    assert!(!server.directory.live("host1").unwrap().dialled_by_us);
}

#[tokio::test]
async fn room_that_an_agent_has_again_by_the_time_it_has_told_everything_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let link = endpoint(7).dial("127.0.0.1", server.port, None).await.unwrap();
    let account = AgentHello { refusing: "the disk is full".into(), ..hello(1) };
    let mut agent = Agent::greet_with(link, account).await;
    server.submit().await;
    assert_eq!(server.handle.agent("host1").await.unwrap().refusing, "the disk is full");
    agent.send(AgentState { caught_up: true, ..AgentState::default() }).await;
    agent.start().await;
    agent.send(AgentState { refusing: "full again".into(), caught_up: true, ..AgentState::default() }).await;
    let heard = async {
        while server.handle.agent("host1").await.unwrap().refusing != "full again" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, heard).await.expect("in time");
}

#[tokio::test]
async fn an_agent_that_listens_is_dialled_and_let_alone_once_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    server.add(Some(listener.local_addr().unwrap().port())).await;
    let (tcp, _) = listener.accept().await.unwrap();
    let mut agent = Agent::greet(endpoint(7).accept(tcp).await.unwrap(), 1).await;
    assert!(server.directory.live("host1").unwrap().dialled_by_us);
    server.handle.remove_agent("host1", false, "me").await.unwrap();
    let over = agent.recv().await.unwrap_err().to_string();
    assert!(over.contains("removed"), "{over}");
}

#[tokio::test]
async fn a_wrong_secret_does_not_get_in_and_a_new_one_does_beside_the_old() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    assert!(endpoint(8).dial("127.0.0.1", server.port, None).await.is_err());
    server.handle.set_secret("host1", vec![8; 32]).await.unwrap();
    for secret in [7, 8] {
        let link = endpoint(secret).dial("127.0.0.1", server.port, None).await.unwrap();
        Agent::greet(link, 1).await;
    }
}

#[tokio::test]
async fn a_question_finds_its_answer_and_none_waits_for_an_agent_that_went() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let ask = |directory: Directory| async move {
        directory.query("host1", RunId::new(1, 1), QueryBody::Ledger(LedgerQuery {})).await
    };
    assert!(matches!(ask(server.directory.clone()).await, Err(QueryError::Away(_))));
    let mut agent = Agent::dial(&server).await;
    server.until_connected(true).await;
    let answers = [
        AnswerBody::Ledger(Ledger { place: "live".into(), ..Ledger::default() }),
        AnswerBody::Failed("disk error".into()),
    ];
    for body in answers {
        let asked = tokio::spawn(ask(server.directory.clone()));
        let Frame::Query(query) = agent.recv().await.unwrap() else { panic!("no question") };
        agent.send(Answer { query_id: Some(999), body: None }).await;
        agent.send(Answer { query_id: query.query_id, body: Some(body) }).await;
        match asked.await.unwrap() {
            Ok(AnswerBody::Ledger(ledger)) => assert_eq!(ledger.place, "live"),
            Err(QueryError::Failed { reason, .. }) => assert_eq!(reason, "disk error"),
            other => panic!("{other:?}"),
        }
    }
    let asked = tokio::spawn(ask(server.directory.clone()));
    agent.recv().await.unwrap();
    drop(agent);
    assert!(matches!(asked.await.unwrap(), Err(QueryError::Away(_))));
    assert!(server.directory.ping("host1").await.is_err());
}

#[tokio::test]
async fn a_stop_on_purpose_is_told_from_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let agent = Agent::dial(&server).await;
    agent.link.sender.close(Some(Goodbye { reason: "the agent stops".into(), stopping: true }));
    server.until_connected(false).await;
    assert!(server.handle.agent("host1").await.unwrap().record.stopped);
    drop(Agent::dial(&server).await);
    server.until_connected(false).await;
    let view = server.handle.agent("host1").await.unwrap();
    assert!(!view.record.stopped && view.record.disconnected_at_ms.is_some());
    assert_eq!(server.directory.connected(), 0);
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_of_the_older_and_another_host_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let mut older = Agent::dial(&server).await;
    let mut newer = Agent::dial(&server).await;
    let over = older.recv().await.unwrap_err().to_string();
    assert!(over.contains("took its place"), "{over}");
    let link = endpoint(7).dial("127.0.0.1", server.port, None).await.unwrap();
    let mut other = Agent { link, hello: ServerHello::default() };
    other.send(hello(9)).await;
    let over = other.recv().await.unwrap_err().to_string();
    assert!(over.contains("two hosts must not have one name"), "{over}");
    let Frame::Acks(acks) = newer.recv().await.unwrap() else { panic!("no notice") };
    assert!(acks.notice.contains("two hosts must not have one name"), "{acks:?}");
    server.submit().await;
    newer.start().await;
}

#[tokio::test]
async fn a_copy_of_a_data_root_on_another_host_is_refused_and_the_agent_that_answers_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let mut agent = Agent::dial(&server).await;
    let link = endpoint(7).dial("127.0.0.1", server.port, None).await.unwrap();
    let mut copy = Agent { link, hello: ServerHello::default() };
    copy.send(AgentHello { boot_id: Some(vec![3; 16]), incarnation: Some(2), ..hello(1) }).await;
    let over = copy.recv().await.unwrap_err().to_string();
    assert!(over.contains("must not be used by two agents"), "{over}");
    let Frame::Query(query) = agent.recv().await.unwrap() else { panic!("no question") };
    assert_eq!(server.handle.agent("host1").await.unwrap().record.trouble, None);
    let body = Some(AnswerBody::Ledger(Ledger::default()));
    agent.send(Answer { query_id: query.query_id, body }).await;
    let Frame::Acks(acks) = agent.recv().await.unwrap() else { panic!("no notice") };
    assert!(acks.notice.contains("must not be used by two agents"), "{acks:?}");
    assert!(server.handle.agent("host1").await.unwrap().record.trouble.is_some());
}

#[tokio::test]
async fn a_message_that_changed_on_the_agents_disk_is_not_acknowledged_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let mut agent = Agent::dial(&server).await;
    server.submit().await;
    let run = agent.start().await;
    agent.say(run, &whole_life()).await;
    assert!(matches!(agent.recv().await, Ok(Frame::Acks(acks)) if acks.notice.is_empty()));
    agent.say(run, &whole_life()).await;
    assert!(matches!(agent.recv().await, Ok(Frame::Acks(acks)) if acks.acks[0].seq == Some(3)));
    agent.say(run, &[FactBody::Accepted(Accepted { boot_id: Some(vec![9; 16]) })]).await;
    let Frame::Acks(acks) = agent.recv().await.unwrap() else { panic!("no notice") };
    assert!(acks.acks.is_empty() && acks.notice.contains("not the one that was stored"), "{acks:?}");
}

#[tokio::test]
async fn a_retired_secret_opens_no_new_link_and_cuts_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let mut agent = Agent::dial(&server).await;
    server.handle.set_secret("host1", vec![8; 32]).await.unwrap();
    endpoint(7).dial("127.0.0.1", server.port, None).await.unwrap();
    endpoint(8).dial("127.0.0.1", server.port, None).await.unwrap();
    server.handle.retire_secrets("host1").await.unwrap();
    assert!(endpoint(7).dial("127.0.0.1", server.port, None).await.is_err());
    endpoint(8).dial("127.0.0.1", server.port, None).await.unwrap();
    server.submit().await;
    agent.start().await;
    let kept = server.db.secrets().unwrap();
    assert_eq!(kept[0].secrets, [vec![8; 32]]);
}

#[tokio::test]
async fn what_cannot_be_read_closes_the_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let mut agent = Agent::dial(&server).await;
    agent.send(Facts { facts: vec![RunFact::default()] }).await;
    let over = agent.recv().await.unwrap_err().to_string();
    assert!(over.contains("run_id"), "{over}");
    let mut agent = Agent::dial(&server).await;
    server.submit().await;
    agent.start().await;
}

/// Run by hand: `cargo test --release -p central-server -- --ignored --nocapture short_jobs`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints how many short jobs per second the server alone can take"]
async fn short_jobs_are_worked_off_quickly() {
    const JOBS: usize = 10_000;
    const IN_FLIGHT: usize = 64;
    let dir = tempfile::tempdir().unwrap();
    let server = Arc::new(Server::new(dir.path()).await);
    server.add(None).await;
    server.handle.set_slots("host1", 64).await.unwrap();
    let mut agent = Agent::dial(&server).await;
    let agent = tokio::spawn(async move {
        loop {
            if let Frame::Start(start) = agent.recv().await.unwrap() {
                agent.say(run_id("Start", &start.run_id).unwrap(), &whole_life()).await;
            }
        }
    });
    let began = std::time::Instant::now();
    let clients: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                for _ in 0..JOBS / IN_FLIGHT {
                    let job = server.submit().await;
                    assert!(server.handle.wait_final(job, DEADLINE).await.unwrap());
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let seconds = began.elapsed().as_secs_f64();
    let commits = server.db.commit_number();
    println!("{:.0} jobs/s, {:.1} jobs per commit", JOBS as f64 / seconds, JOBS as f64 / commits as f64);
    agent.abort();
}

#[tokio::test]
async fn a_wrong_secret_is_said_to_whoever_asks_for_the_agent_and_told_once_until_it_connects() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::new(dir.path()).await;
    server.add(None).await;
    let job = server.submit().await;
    let mut events = server.handle.follow();
    let fail = async || {
        let failed = async || server.handle.agent("host1").await.unwrap().failed_proof;
        let before = failed().await;
        assert!(endpoint(8).dial("127.0.0.1", server.port, None).await.is_err());
        let known = async {
            while failed().await == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(DEADLINE, known).await.expect("in time");
    };
    fail().await;
    fail().await;
    let why = server.handle.why(job).await.unwrap();
    assert!(why.contains(" from 127.0.0.1:") && why.contains("failed: wrong secret"), "{why}");
    let agent = Agent::dial(&server).await;
    assert_eq!(server.handle.agent("host1").await.unwrap().failed_proof, None);
    drop(agent);
    server.until_connected(false).await;
    fail().await;
    server.handle.remove_agent("host1", true, "me").await.unwrap(); // committed after all that is counted
    let mut told = 0;
    while let Ok(record) = events.try_recv() {
        told += usize::from(record.event.kind == scheduler::EventKind::AgentUnproven);
    }
    assert_eq!(told, 2);
}
