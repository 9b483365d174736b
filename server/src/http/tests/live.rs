//! With an agent: outcomes, output, ledger, waiting.

use super::{DEADLINE, Server, agent};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn an_outcome_arrives_and_a_long_poll_brings_it() {
    let server = Server::start();
    agent::start(&server, true);
    let id = server.submit();
    let job = server.get(&format!("/api/v1/jobs/{id}?wait=30s")).json();
    assert_eq!((&job["status"], &job["exit_code"]), (&json!("Error"), &json!(7)), "{job}");
    let run = &job["runs"][0];
    assert_eq!(
        (&run["witness"], &run["attempt"], &run["agent"]),
        (&json!("job-processor"), &json!(1), &json!("host1"))
    );
    assert_eq!(run["started_at"], "1970-01-01T00:00:02.000Z");
    assert_eq!(server.get("/api/v1/jobs?status=Error&agent=host1").json()["items"][0]["id"], id);
    let killed = server.post(&format!("/api/v1/jobs/{id}/kill"), json!({}));
    assert_eq!((killed.status, killed.kind().as_str()), (409, "already-over"));
}

#[test]
fn output_is_read_whole_by_range_and_by_attempt() {
    let server = Server::start();
    agent::start(&server, true);
    let id = server.submit();
    server.get(&format!("/api/v1/jobs/{id}?wait=30s"));
    let whole = agent::output();
    let path = format!("/api/v1/jobs/{id}/output/stdout");
    let all = server.get(&path);
    assert_eq!((all.status, all.body == whole), (200, true));
    assert_eq!(all.header("x-size"), whole.len().to_string());
    assert_eq!(
        (all.header("x-offset"), all.header("x-complete"), all.header("x-attempt")),
        ("0", "true", "1")
    );
    let part = server.get(&format!("{path}?offset=999990&limit=5&attempt=1"));
    assert_eq!(part.body, whole[999_990..999_995]);
    let beyond = server.get(&format!("{path}?offset=5000000"));
    assert_eq!((beyond.body.len(), beyond.header("x-offset")), (0, "1000000"));
    assert_eq!(server.get(&format!("{path}?attempt=2")).kind(), "no-run-yet");
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}/output/stdin")).status, 404);
}

/// Asks for the output of a job and reads what comes until the connection is silent for a moment, or over.
fn follow(server: &Server, query: &str, id: u64) -> (TcpStream, Vec<u8>) {
    let mut socket = TcpStream::connect(server.http).unwrap();
    let path = format!("/api/v1/jobs/{id}/output/stdout?follow=true{query}");
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", server.token);
    socket.write_all(head.as_bytes()).unwrap();
    (socket, Vec::new())
}

#[test]
fn a_follower_gets_all_and_the_end_of_a_run_that_is_over() {
    let server = Server::start();
    agent::start(&server, true);
    let id = server.submit();
    server.get(&format!("/api/v1/jobs/{id}?wait=30s"));
    let all = server.get(&format!("/api/v1/jobs/{id}/output/stdout?follow=true&offset=10"));
    assert_eq!((all.status, all.body == agent::output()[10..]), (200, true));
    assert_eq!((all.header("content-length"), all.header("x-offset")), ("", "10"));
    let few = server.get(&format!("/api/v1/jobs/{id}/output/stdout?follow=true&limit=3"));
    assert_eq!(few.body, agent::output()[..3]);
}

#[test]
fn a_follower_of_a_quiet_run_is_let_go_after_its_wait_and_when_the_server_stops() {
    let mut server = Server::start();
    agent::start(&server, false);
    let id = server.submit();
    server.until(&format!("/api/v1/jobs/{id}"), |job| job["status"] == "Running");
    let all = server.get(&format!("/api/v1/jobs/{id}/output/stdout?follow=true&wait=1s"));
    assert_eq!((all.header("x-complete"), all.body == agent::output()), ("false", true));
    let (mut socket, mut got) = follow(&server, "", id);
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut piece = vec![0; 1 << 20];
    while got.len() < agent::output().len() {
        let bytes = socket.read(&mut piece).unwrap();
        got.extend_from_slice(&piece[..bytes]);
    }
    drop(server.stop.take());
    let mut rest = Vec::new();
    let _broken_off = socket.read_to_end(&mut rest).is_err();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it must not look like the end");
}

#[test]
fn a_follower_that_does_not_read_delays_no_other() {
    let server = Server::start();
    agent::start(&server, true);
    let id = server.submit();
    server.get(&format!("/api/v1/jobs/{id}?wait=30s"));
    let stuck: Vec<_> = (0..20).map(|_| follow(&server, "", id)).collect();
    let all = server.get(&format!("/api/v1/jobs/{id}/output/stdout"));
    assert!(all.body == agent::output());
    drop(stuck);
    let all = server.get(&format!("/api/v1/jobs/{id}/output/stdout"));
    assert!(all.body == agent::output());
}

#[test]
fn the_proof_shows_both_views() {
    let server = Server::start();
    agent::start(&server, true);
    let id = server.submit();
    server.get(&format!("/api/v1/jobs/{id}?wait=30s"));
    let proof = server.get(&format!("/api/v1/jobs/{id}/proof")).json();
    let run = &proof["runs"][0];
    assert_eq!((&run["agrees"], &run["agent_place"]), (&json!(true), &json!("settled")), "{proof}");
    let ended = run["steps"].as_array().unwrap().iter().find(|step| step["step"] == "ended").unwrap();
    assert_eq!((&ended["seq"], &ended["server"]), (&json!(3), &ended["agent"]));
}

#[test]
fn without_its_agent_output_is_refused_and_the_proof_says_what_is_missing() {
    let server = Server::start();
    let task = agent::start(&server, true);
    let id = server.submit();
    server.get(&format!("/api/v1/jobs/{id}?wait=30s"));
    task.abort();
    server.until("/api/v1/agents/host1", |agent| agent["connected"] == false);
    let answer = server.get(&format!("/api/v1/jobs/{id}/output/stdout"));
    assert_eq!(
        (answer.status, answer.kind().as_str(), answer.header("retry-after")),
        (503, "agent-away", "1")
    );
    let proof = server.get(&format!("/api/v1/jobs/{id}/proof")).json();
    assert!(proof["runs"][0]["agent_missing"].as_str().unwrap().contains("host1"), "{proof}");
    assert_eq!(proof["runs"][0]["agrees"], json!(null));
}

#[test]
fn a_ping_goes_to_the_agent_and_back() {
    let server = Server::start();
    agent::start(&server, true);
    let ping = server.post("/api/v1/agents/host1/ping", json!({})).json();
    assert!(ping["round_trip_ms"].as_f64().unwrap() > 0.0, "{ping}");
}

#[test]
fn a_kill_of_a_running_job_is_on_record_before_it_is_answered() {
    let server = Server::start();
    agent::start(&server, false);
    let id = server.submit();
    server.until(&format!("/api/v1/jobs/{id}"), |job| job["status"] == "Running");
    let killed = server.post(&format!("/api/v1/jobs/{id}/kill"), json!({"grace": "1s"}));
    assert_eq!((killed.status, &killed.json()["kill_requested_by"]), (202, &json!("admin")));
    let removed = server.call("DELETE", "/api/v1/agents/host1", Vec::new());
    assert_eq!((removed.status, removed.kind().as_str()), (409, "agent-in-use"));
    let held = server.post(&format!("/api/v1/jobs/{id}/hold"), json!({}));
    assert_eq!((held.status, held.kind().as_str()), (409, "already-placed"));
}

#[test]
fn a_stop_leaves_no_long_poll_hanging() {
    let mut server = Server::start();
    agent::start(&server, false);
    let id = server.submit();
    let mut socket = TcpStream::connect(server.http).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let request = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", server.token)
    };
    // Once this is answered, the connection is served.
    socket.write_all(request("/healthz").as_bytes()).unwrap();
    assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
    socket.write_all(request(&format!("/api/v1/jobs/{id}?wait=60s")).as_bytes()).unwrap();
    drop(server.stop.take());
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("the connection hangs");
    // Nothing, if the server stopped before it had read the question.
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
