//! Without an agent: submissions, lists, queues, refusals, the description.

use super::{DEADLINE, Limits, Server};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use ureq::http::Request;

#[test]
fn a_submission_is_answered_with_the_job_and_where_it_is() {
    let server = Server::start();
    let request = json!({"command": ["/bin/echo", "ü"], "name": "n", "env": {"A": "1"}, "params": {"P": "2"},
        "timeout": "1h", "grace": 500, "priority": 3, "cwd": "/tmp"});
    let answer = server.post("/api/v1/jobs", request);
    let job = answer.json();
    assert_eq!((answer.status, answer.header("location")), (201, "/api/v1/jobs/1"), "{job}");
    assert_eq!((&job["id"], &job["status"], &job["queue"]), (&json!(1), &json!("Queued"), &json!("default")));
    assert_eq!(
        (&job["timeout"], &job["grace"], &job["command"]),
        (&json!("1h"), &json!("500ms"), &json!(["/bin/echo", "ü"]))
    );
    for field in ["agent", "exit_code", "signal", "reason", "started_at", "ended_at"] {
        assert_eq!(job.get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(server.get("/api/v1/jobs/1").json(), job);
}

#[test]
fn attributes_are_shown_as_they_were_asked_for_and_impossible_ones_are_refused() {
    let server = Server::start();
    let with = |body: Value| {
        let mut whole = json!({"command": ["/bin/true"]});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        server.post("/api/v1/jobs", whole)
    };
    let answer =
        with(json!({"umask": "27", "nice": -5, "limits": {"nofile": "1K:4096", "core": "unlimited"}}));
    let job = answer.json();
    assert_eq!((answer.status, &job["umask"], &job["nice"]), (201, &json!("027"), &json!(-5)), "{job}");
    assert_eq!(job["limits"], json!({"nofile": "1024:4096", "core": "unlimited"}));
    for (body, said) in [
        (json!({"umask": "888"}), "umask"),
        (json!({"nice": 20}), "-20 to 19"),
        (json!({"limits": {"files": "1"}}), "no limit \"files\""),
        (json!({"limits": {"nofile": "9:8"}}), "beyond the hard"),
        (json!({"limits": {"rtprio": "100"}}), "0 to 99"),
    ] {
        let refused = with(body);
        let text = refused.json().to_string().replace("\\\"", "\"");
        assert!(refused.status == 422 && text.contains(said), "{said}: {text}");
    }
}

#[test]
fn the_same_key_is_the_same_job_and_another_request_under_it_is_refused() {
    let server = Server::start();
    let with_key = |body: Value| {
        let request = Request::post(server.url("/api/v1/jobs"))
            .header("authorization", format!("bearer {}", server.token))
            .header("idempotency-key", "k1");
        server.send(request, body.to_string().into_bytes())
    };
    let first = with_key(json!({"command": ["/bin/true"]}));
    let second = with_key(json!({"command": ["/bin/true"]}));
    let third = server.post("/api/v1/jobs", json!({"command": ["/bin/true"], "idempotency_key": "k1"}));
    let other = with_key(json!({"command": ["/bin/false"]}));
    let differ = with_key(json!({"command": ["/bin/true"], "idempotency_key": "k2"}));
    assert_eq!((first.status, second.status, third.status), (201, 200, 200));
    assert_eq!(
        (first.json()["id"].clone(), second.json()["id"].clone()),
        (json!(1), third.json()["id"].clone())
    );
    assert_eq!((other.status, other.kind().as_str()), (422, "key-reused"));
    assert_eq!(differ.status, 422);
}

#[test]
fn a_batch_creates_all_its_jobs_or_none() {
    let server = Server::start();
    let job = json!({"command": ["/bin/true"]});
    let ids = server.post("/api/v1/jobs/batch", json!({"jobs": [job, job, job]}));
    assert_eq!((ids.status, ids.json()), (201, json!({"ids": [1, 2, 3]})));
    let bad = json!({"command": ["/bin/true"], "queue": "nowhere"});
    let refused = server.post("/api/v1/jobs/batch", json!({"jobs": [job, bad]}));
    assert_eq!((refused.status, refused.kind().as_str()), (422, "no-such-queue"));
    let many = vec![json!({"command": ["x"]}); api::BATCH_JOBS_MAX + 1];
    assert_eq!(server.post("/api/v1/jobs/batch", json!({"jobs": many})).status, 422);
    assert_eq!(server.get("/api/v1/jobs/counts").json()["Queued"], 3);
}

#[test]
fn lists_are_filtered_and_paged_to_their_end() {
    let server = Server::start();
    let job = |name: &str| json!({"command": ["/bin/true"], "name": name});
    server.post("/api/v1/jobs/batch", json!({"jobs": [job("a"), job("b"), job("a"), job("a"), job("b")]}));
    let mut seen = Vec::new();
    let mut path = "/api/v1/jobs?limit=2&status=Queued,Running&queue=default".to_owned();
    loop {
        let page = server.get(&path).json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|job| job["id"].as_u64().unwrap()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/jobs?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    assert_eq!(server.get("/api/v1/jobs?name=b").json()["items"].as_array().unwrap().len(), 2);
    let found =
        |query: &str| server.get(&format!("/api/v1/jobs?{query}")).json()["items"].as_array().unwrap().len();
    assert_eq!((found("name=b*"), found("name=*"), found("name=c*")), (2, 5, 0));
    assert_eq!((found("since=2020-01-01T00:00:00Z"), found("until=2020-01-01T00:00:00Z")), (5, 0));
    assert_eq!((found("failed=true"), found("exit_code=7")), (0, 0));
    for wrong in [
        "since=yesterday",
        "exit_code=256",
        "failed=1",
        "limit=0",
        "limit=1001",
        "status=Finished",
        "cursor=x",
        "colour=red",
        "limit=x",
    ] {
        let answer = server.get(&format!("/api/v1/jobs?{wrong}"));
        assert_eq!((answer.status, answer.kind().as_str()), (400, "unreadable"), "{wrong}");
    }
}

#[test]
fn a_job_that_does_not_run_yet_is_held_released_and_taken_back() {
    let server = Server::start();
    let id = server.submit();
    let path = |verb: &str| format!("/api/v1/jobs/{id}/{verb}");
    assert_eq!(server.post(&path("hold"), json!({})).json()["status"], "Held");
    assert!(server.get(&path("why")).json()["why"].as_str().unwrap().contains("held"));
    assert_eq!(server.post(&path("release"), json!({})).json()["status"], "Queued");
    assert_eq!(server.post(&path("release"), json!({})).kind(), "not-held");
    let no_run = server.get(&path("output/stdout"));
    assert_eq!((no_run.status, no_run.kind().as_str()), (404, "no-run-yet"));
    // A kill needs no body at all.
    let killed = server.call("POST", &path("kill"), Vec::new());
    assert_eq!((killed.status, &killed.json()["status"]), (202, &json!("Canceled")));
    assert_eq!(server.post(&path("cancel"), json!({})).kind(), "already-over");
    assert!(server.get(&path("why")).json()["why"].as_str().unwrap().contains("Canceled"));
}

#[test]
fn queues_and_agents_are_made_joined_and_removed() {
    let server = Server::start();
    let secret = "s".repeat(40);
    let agent = json!({"name": "h", "host": "h.example", "port": 1, "secret": secret, "queues": []});
    assert_eq!(server.post("/api/v1/agents", agent.clone()).status, 201);
    assert_eq!(server.post("/api/v1/agents", agent).kind(), "name-taken");
    assert_eq!(
        server.post("/api/v1/queues", json!({"name": "q", "held": true, "agents": ["h"]})).status,
        201
    );
    let queue = server.get("/api/v1/queues/q").json();
    assert_eq!((&queue["held"], &queue["agents"]), (&json!(true), &json!(["h"])));
    assert_eq!(server.post("/api/v1/queues/q/release", json!({})).json()["held"], false);
    assert_eq!(server.post("/api/v1/queues/q/detach", json!({"agent": "h"})).json()["agents"], json!([]));
    assert_eq!(server.post("/api/v1/queues/q/attach", json!({"agent": "x"})).kind(), "no-such-agent");
    assert_eq!(server.post("/api/v1/queues", json!({"name": "r", "agents": ["x"]})).status, 422);
    assert_eq!(server.get("/api/v1/queues/r").status, 404);
    assert_eq!(server.post("/api/v1/agents/h/set", json!({"slots": 9})).json()["slots"], 9);
    assert_eq!(server.post("/api/v1/agents/h/ping", json!({})).kind(), "agent-away");
    assert_eq!(server.call("DELETE", "/api/v1/agents/h", Vec::new()).status, 204);
    assert_eq!(server.call("DELETE", "/api/v1/queues/q", Vec::new()).status, 204);
    assert_eq!(server.get("/api/v1/agents").json()["items"], json!([]));
    assert!(!server.get("/api/v1/agents").body.windows(40).any(|part| part == secret.as_bytes()));
}

#[test]
fn every_refusal_is_a_problem_with_a_reason() {
    let server = Server::start();
    let cases = [
        ("GET", "/api/v1/jobs/7", "", 404, "no-such-job"),
        ("GET", "/api/v1/jobs/x", "", 404, "no-such-address"),
        ("GET", "/api/v1/nix", "", 404, "no-such-address"),
        ("GET", "/nix", "", 404, "no-such-address"),
        ("PUT", "/api/v1/jobs", "", 405, "no-such-method"),
        ("POST", "/api/v1/jobs", "", 400, "unreadable"),
        ("POST", "/api/v1/jobs", "{\"command\":", 400, "unreadable"),
        ("POST", "/api/v1/jobs", "\u{0}\u{1}", 400, "unreadable"),
        ("POST", "/api/v1/jobs", "{\"comand\":[]}", 422, "invalid"),
        ("POST", "/api/v1/jobs", "{\"command\":[]}", 422, "invalid"),
        ("POST", "/api/v1/jobs", "{\"command\":[\"\"]}", 422, "invalid"),
        ("POST", "/api/v1/jobs", "{\"command\":[\"x\"],\"timeout\":\"90\"}", 422, "invalid"),
        ("POST", "/api/v1/jobs", "{\"command\":[\"x\"],\"cwd\":\"relative\"}", 422, "invalid"),
        ("POST", "/api/v1/jobs", "{\"command\":[\"x\"],\"env\":{\"A=B\":\"\"}}", 422, "invalid"),
        ("POST", "/api/v1/jobs", "{\"command\":[\"x\"],\"queue\":\"q\"}", 422, "no-such-queue"),
        ("POST", "/api/v1/jobs", "{\"command\":[\"x\"],\"agent\":\"a\"}", 422, "no-such-agent"),
        ("POST", "/api/v1/queues", "{\"name\":\"a b\"}", 422, "bad-name"),
        ("POST", "/api/v1/agents", "{\"name\":\"a\",\"dials_in\":true,\"secret\":\"short\"}", 422, "invalid"),
        ("POST", "/api/v1/jobs/7/kill", "{}", 404, "no-such-job"),
        ("POST", "/api/v1/jobs/7/kill", "{\"grase\":\"1s\"}", 422, "invalid"),
    ];
    for (method, path, body, status, kind) in cases {
        let answer = server.call(method, path, body.as_bytes().to_vec());
        assert_eq!((answer.status, answer.kind().as_str()), (status, kind), "{method} {path} {body}");
    }
    let huge = server.call("POST", "/api/v1/jobs", vec![b' '; super::super::extract::BODY_BYTES_MAX + 1]);
    assert_eq!((huge.status, huge.kind().as_str()), (413, "too-large"));
}

#[test]
fn nothing_below_api_is_open_without_a_token() {
    let server = Server::start();
    let description = server.get("/api/openapi.json").json();
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{id}", "1").replace("{name}", "a").replace("{stream}", "stdout");
            let request = |token: &str| {
                let request = Request::builder().method(&*method.to_uppercase()).uri(server.url(&path));
                server.send(request.header("authorization", token), Vec::new()).status
            };
            let wrong = format!("Bearer lw_00000000_{}", "0".repeat(64));
            let expected = if path.starts_with("/api/") { 401 } else { 200 };
            assert_eq!((request(""), request(&wrong)), (expected, expected), "{method} {path}");
        }
    }
}

#[test]
fn every_route_is_described_and_every_description_is_complete() {
    let server = Server::start();
    let description = server.get("/api/openapi.json").json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = description["paths"].as_object().unwrap();
    let mut names = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            names.push(operation["operationId"].as_str().unwrap().to_owned());
            if path.starts_with("/api/") {
                assert!(
                    operation["responses"]["401"]["content"]["application/problem+json"].is_object(),
                    "{method} {path}"
                );
            }
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "names of operations are not unique: {names:?}");
    let expected = [
        "/api/v1/jobs",
        "/api/v1/jobs/batch",
        "/api/v1/jobs/counts",
        "/api/v1/jobs/{id}",
        "/api/v1/jobs/{id}/kill",
        "/api/v1/jobs/{id}/hold",
        "/api/v1/jobs/{id}/release",
        "/api/v1/jobs/{id}/cancel",
        "/api/v1/jobs/{id}/why",
        "/api/v1/jobs/{id}/proof",
        "/api/v1/jobs/{id}/output/{stream}",
        "/api/v1/agents",
        "/api/v1/agents/{name}",
        "/api/v1/agents/{name}/ping",
        "/api/v1/queues",
        "/api/v1/queues/{name}",
        "/api/v1/queues/{name}/hold",
        "/api/v1/queues/{name}/release",
        "/api/v1/queues/{name}/attach",
        "/api/v1/queues/{name}/detach",
        "/api/v1/server/status",
        "/healthz",
        "/readyz",
        "/metrics",
    ];
    for path in expected {
        assert!(paths.contains_key(path), "{path} is not described");
    }
    for reference in references(&description) {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(description.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

fn references(value: &Value) -> Vec<String> {
    let own = value.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned);
    let fields = value.as_object().into_iter().flat_map(|fields| fields.values());
    let items = value.as_array().into_iter().flatten();
    own.into_iter().chain(fields.chain(items).flat_map(references)).collect()
}

#[test]
fn health_status_and_figures_are_there() {
    let server = Server::start();
    assert_eq!(
        (server.get("/healthz").status, server.get("/readyz").json()["status"].clone()),
        (200, json!("ok"))
    );
    server.submit();
    let status = server.get("/api/v1/server/status").json();
    assert_eq!(
        (&status["name"], &status["ready"], &status["epoch"]),
        (&json!("a"), &json!(true), &json!(1)),
        "{status}"
    );
    assert_eq!(status["jobs"]["Queued"], 1);
    let figures = String::from_utf8(server.get("/metrics").body).unwrap();
    for name in
        ["lastword_jobs{status=\"Queued\"} 1", "lastword_commits_total", "lastword_http_requests_total{"]
    {
        assert!(figures.contains(name), "{name} is not in\n{figures}");
    }
}

#[test]
fn a_server_whose_core_is_gone_is_not_ready() {
    let server = Server::start();
    server.runtime.block_on(server.handle.stop());
    let answer = server.get("/readyz");
    assert_eq!((answer.status, answer.json()["status"].clone()), (503, json!("not ready")));
    assert_eq!(server.get("/healthz").status, 200);
    let refused = server.post("/api/v1/jobs", json!({"command": ["/bin/true"]}));
    assert_eq!((refused.status, refused.kind().as_str()), (503, "stopping"));
}

#[test]
fn garbage_ends_its_own_connection_and_nothing_else() {
    let server = Server::start();
    for garbage in [&b"\x16\x03\x01\x00\xff\xff\xff"[..], b"GET\r\n\r\n\r\n", &[0xffu8; 100_000]] {
        let mut socket = TcpStream::connect(server.http).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        // The server may close before it has all: that is an answer too.
        let _ = socket.write_all(garbage);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_peer_that_does_not_read_loses_its_place_to_the_next() {
    let limits = Limits { connections: 1, write_max: Duration::from_millis(100) };
    let server = Server::start_within(limits);
    let mut deaf = TcpStream::connect(server.http).unwrap();
    deaf.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let head = "GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    // The answers are far more than the buffers of both sockets take.
    let _ = deaf.write_all(head.repeat(2_000).as_bytes());
    assert_eq!(server.get("/healthz").status, 200, "the only place is still taken");
    drop(deaf);
}

#[test]
fn settings_of_what_follows_an_attempt_are_shown_as_they_were_given() {
    let server = Server::start();
    let retry = json!({"attempts_max": 3, "backoff": "10s", "backoff_max": "5m", "factor": 1.5, "on": [75, "100-110", "signal"]});
    let job = server
        .post(
            "/api/v1/jobs",
            json!({"command": ["/bin/true"], "retry": retry, "on_unknown": "restart", "restart_safe": "at_least_once",
                "start_at": "2126-01-01T00:00:00.000Z"}),
        )
        .json();
    assert_eq!((&job["retry"], &job["status"]), (&retry, &json!("Scheduled")));
    assert_eq!((&job["on_unknown"], &job["restart_safe"]), (&json!("restart"), &json!("at_least_once")));
    assert_eq!(
        (&job["waits_for"], &job["waits_until"]),
        (&json!("start"), &json!("2126-01-01T00:00:00.000Z"))
    );
    let usual = server.post("/api/v1/jobs", json!({"command": ["/bin/true"]})).json();
    assert_eq!((&usual["on_unknown"], &usual["restart_safe"]), (&json!("none"), &json!("never_twice")));
    for (wrong, says) in [
        (json!({"on_unknown": "restart"}), "at_least_once"),
        (json!({"retry": {"attempts_max": 0}}), "attempts_max"),
        (json!({"params": {"a-b": "1", "A_B": "2"}}), "LASTWORD_PARAM_A_B"),
        (json!({"delay": "1s", "start_at": "2126-01-01T00:00:00Z"}), "not both"),
    ] {
        let mut request = json!({"command": ["/bin/true"]});
        for (name, value) in wrong.as_object().unwrap() {
            request[name] = value.clone();
        }
        let answer = server.post("/api/v1/jobs", request);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(answer.status == 422 && detail.contains(says), "{wrong}: {} {detail}", answer.status);
    }
}

#[test]
fn a_job_that_is_over_is_restarted_and_one_that_waits_is_abandoned() {
    let server = Server::start();
    server.post("/api/v1/jobs", json!({"command": ["/bin/true"]}));
    let restart = |body: Value| server.post("/api/v1/jobs/1/restart", body);
    assert_eq!((restart(json!({})).status, restart(json!({})).kind().as_str()), (409, "not-over"));
    server.post("/api/v1/jobs/1/cancel", json!({}));
    assert_eq!(restart(json!({"force": true})).kind(), "no-reason");
    assert_eq!(restart(json!({"hold": true, "reason": "again"})).json()["status"], "Held");
    let abandon = |body: Value| server.post("/api/v1/jobs/1/abandon", body);
    assert_eq!(abandon(json!({})).status, 422);
    let job = abandon(json!({"reason": "of no use"})).json();
    assert_eq!(
        (&job["status"], job["reason"].as_str().unwrap().ends_with(": of no use")),
        (&json!("Abandoned"), true)
    );
    let why = server.get("/api/v1/jobs/1/why").json();
    assert!(why["why"].as_str().unwrap().contains("Abandoned"), "{why}");
    assert_eq!(server.post("/api/v1/jobs/99/restart", json!({})).status, 404);
}

#[test]
fn a_queue_has_slots_and_a_priority() {
    let server = Server::start();
    let set = |body: Value| server.post("/api/v1/queues/default/set", body);
    let queue = set(json!({"slots": 4, "priority": -2})).json();
    assert_eq!((&queue["slots"], &queue["priority"]), (&json!(4), &json!(-2)));
    assert_eq!(set(json!({})).json()["slots"], 4);
    assert_eq!(set(json!({"no_slots": true})).json()["slots"], Value::Null);
    assert_eq!(set(json!({"no_slots": true, "slots": 1})).status, 422);
    assert_eq!(server.post("/api/v1/queues/none/set", json!({"slots": 1})).status, 404);
}
