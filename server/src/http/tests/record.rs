//! Who may do what, who did what, and what is told as it happens.

use super::{Answer, DEADLINE, Server};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use ureq::http::Request;

impl Server {
    /// A new token, whole and by its identifier.
    fn token(&self, name: &str, role: &str) -> (String, String) {
        let made = self.post("/api/v1/tokens", json!({"name": name, "role": role}));
        assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
        let made = made.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["secret"]), text(&made["token"]["id"]))
    }

    fn with(&self, token: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let request = Request::builder().method(method).uri(self.url(path));
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request, if body.is_null() { Vec::new() } else { body.to_string().into_bytes() })
    }

    fn post_with(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.with(&self.token, "POST", path, headers, &body)
    }

    /// The newest audit entries.
    fn audit(&self, query: &str) -> Vec<Value> {
        self.get(&format!("/api/v1/audit?{query}")).json()["items"].as_array().unwrap().clone()
    }
}

/// Every described operation: its method and a path with something in its places.
fn operations(server: &Server) -> Vec<(String, String)> {
    let description = server.get("/api/openapi.json").json();
    let mut operations = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        let mut filled = path.clone();
        while let Some((before, rest)) = filled.split_once('{') {
            let (_, after) = rest.split_once('}').unwrap();
            filled = format!("{before}1{after}");
        }
        let methods = item.as_object().unwrap().keys();
        operations.extend(methods.map(|method| (method.to_uppercase(), filled.clone())));
    }
    operations
}

#[test]
fn a_viewer_changes_nothing_and_each_try_is_on_record() {
    let server = Server::start();
    let (viewer, _) = server.token("eye", "viewer");
    let (mut tried, mut secret) = (0, 0);
    for (method, path) in operations(&server).into_iter().filter(|(_, path)| path.starts_with("/api/v1/")) {
        if method == "GET" {
            // The head of a stream is no answer to wait for.
            if path == "/api/v1/events" {
                continue;
            }
            let status = server.with(&viewer, "GET", &path, &[], &Value::Null).status;
            let for_admins = ["/api/v1/audit", "/api/v1/tokens", "/api/v1/users"].contains(&path.as_str());
            if path.starts_with("/api/v1/agents/1/logs/") {
                assert_eq!(status, 403, "{path} is for operators");
                continue;
            }
            secret += usize::from(for_admins);
            assert_eq!(status == 403, for_admins, "{method} {path}: {status}");
            continue;
        }
        let refused = server.with(&viewer, &method, &path, &[("x-lastword-reason", "a try")], &json!({}));
        assert_eq!((refused.status, refused.kind().as_str()), (403, "role"), "{method} {path}");
        let entry = &server.audit("limit=1")[0];
        let (action, object) = (entry["action"].as_str().unwrap(), entry["object"].as_str().unwrap());
        let kind = object.split('/').next().unwrap();
        assert!(action.starts_with(&format!("{kind}.")) && entry["result"] == "refused", "{path}: {entry}");
        assert!(!path.contains("/1") || object == format!("{kind}/1"), "{path}: {entry}");
        assert_eq!((&entry["user"], &entry["reason"]), (&json!("eye"), &json!("a try")), "{entry}");
        tried += 1;
    }
    assert!(tried > 15 && secret == 3, "{tried} {secret}");
}

#[test]
fn an_operator_handles_jobs_and_changes_neither_agents_nor_tokens() {
    let server = Server::start();
    let (operator, _) = server.token("op", "operator");
    let ask = |method, path, body: Value| server.with(&operator, method, path, &[], &body).status;
    assert_eq!(ask("POST", "/api/v1/jobs", json!({"command": ["/bin/true"]})), 201);
    assert_eq!(ask("POST", "/api/v1/jobs/1/kill", json!({})), 202);
    assert_eq!(ask("POST", "/api/v1/queues/default/hold", json!({})), 200);
    assert_eq!(ask("POST", "/api/v1/queues/default/set", json!({"slots": 3})), 403);
    assert_eq!(ask("POST", "/api/v1/queues", json!({"name": "q"})), 403);
    assert_eq!(ask("POST", "/api/v1/tokens", json!({"name": "t", "role": "admin"})), 403);
    assert_eq!(ask("DELETE", "/api/v1/agents/a", Value::Null), 403);
    assert_eq!(server.get("/api/v1/jobs/1").json()["submitted_by"], "op");
}

#[test]
fn whatever_was_refused_is_found_in_the_audit_by_its_object_once() {
    let server = Server::start();
    server.submit();
    let (viewer, _) = server.token("eye", "viewer");
    assert_eq!(server.with(&viewer, "POST", "/api/v1/jobs/1/kill", &[], &json!({})).status, 403);
    let before = server.audit("").len();
    let of_job = server.audit("object=job/1");
    assert_eq!((&of_job[0]["action"], &of_job[0]["result"]), (&json!("job.kill"), &json!("refused")));
    let refused = [
        (
            "/api/v1/tokens",
            json!({"name": "x", "role": "viewer", "user": "nobody"}),
            404,
            "token.new",
            "token",
        ),
        ("/api/v1/queues/default/set", json!({"slots": "many"}), 422, "queue.set", "queue/default"),
        ("/api/v1/queues/q/hold", json!({}), 404, "queue.hold", "queue/q"),
        ("/api/v1/jobs/1/release", json!({}), 409, "job.release", "job/1"),
    ];
    for (path, body, status, action, object) in &refused {
        assert_eq!(server.post(path, body.clone()).status, *status, "{path}");
        let entry = &server.audit("limit=1")[0];
        let expected = (&json!(action), &json!(object), &json!("refused"));
        assert_eq!((&entry["action"], &entry["object"], &entry["result"]), expected, "{path}");
    }
    assert_eq!(server.post("/api/v1/agents/nowhere/ping", json!({})).status, 404);
    assert_eq!(server.audit("").len(), before + refused.len(), "each once, and a ping changes nothing");
}

#[test]
fn a_token_that_is_revoked_or_whose_user_is_disabled_opens_nothing_from_then_on() {
    let server = Server::start();
    let (token, id) = server.token("anna", "viewer");
    let looks = || server.with(&token, "GET", "/api/v1/jobs", &[], &Value::Null);
    assert_eq!(looks().status, 200);
    let user = |verb: &str| server.post(&format!("/api/v1/users/anna/{verb}"), json!({})).json();
    assert_eq!(user("disable")["disabled"], true);
    let refused = looks();
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("disabled"));
    assert_eq!(user("enable")["disabled"], false);
    assert_eq!(looks().status, 200);
    let shown = server.get("/api/v1/tokens?user=anna").json();
    assert!(shown["items"][0]["used_at"].is_string() && !shown.to_string().contains(&token), "{shown}");
    assert_eq!(server.call("DELETE", &format!("/api/v1/tokens/{id}"), Vec::new()).status, 204);
    assert_eq!(looks().status, 401);
    assert_eq!(server.get("/api/v1/tokens?user=anna").json()["items"], json!([]));
    assert_eq!(server.get("/api/v1/tokens?user=anna&all=true").json()["items"][0]["state"], "revoked");
    let again = server.call("DELETE", &format!("/api/v1/tokens/{id}"), Vec::new());
    assert_eq!((again.status, again.kind().as_str()), (409, "already-revoked"));
    let admin = server.get("/api/v1/tokens?user=admin").json()["items"][0]["id"].as_str().unwrap().to_owned();
    let last = server.call("DELETE", &format!("/api/v1/tokens/{admin}"), Vec::new());
    assert_eq!((last.status, last.kind().as_str()), (409, "last-admin"));
    assert_eq!(server.call("DELETE", "/api/v1/users/anna", Vec::new()).status, 204);
    assert_eq!(server.call("DELETE", "/api/v1/users/anna", Vec::new()).kind(), "no-such-user");
}

#[test]
fn a_token_for_a_user_who_is_not_there_is_not_made() {
    let server = Server::start();
    let wanted = json!({"name": "laptop", "role": "viewer", "user": "ana"});
    let refused = server.post("/api/v1/tokens", wanted.clone());
    assert_eq!((refused.status, &refused.json()["title"]), (404, &json!("No such user")));
    assert!(refused.json()["detail"].as_str().unwrap().contains("\"ana\""), "{}", refused.json());
    assert!(!server.get("/api/v1/users").json()["items"].to_string().contains("ana"));
    assert_eq!(server.post("/api/v1/users", json!({"name": "ana"})).status, 201);
    assert_eq!(server.post("/api/v1/tokens", wanted).status, 201);
}

#[test]
fn an_expired_token_opens_nothing() {
    let server = Server::start();
    let made =
        server.post("/api/v1/tokens", json!({"name": "soon", "role": "viewer", "expires": "1ms"})).json();
    std::thread::sleep(std::time::Duration::from_millis(2)); // its whole time
    let token = made["secret"].as_str().unwrap();
    let refused = server.with(token, "GET", "/api/v1/jobs", &[], &Value::Null);
    assert!(refused.status == 401 && refused.json()["detail"].as_str().unwrap().contains("expired"));
}

#[test]
fn every_change_is_audited_with_who_and_why_and_never_with_a_secret() {
    let server = Server::start();
    let secret = "0123456789abcdef0123456789abcdef-hush";
    let agent = json!({"name": "h", "dials_in": true, "secret": secret, "slots": 3});
    let headers = [("x-lastword-reason", "Störung 7"), ("user-agent", "test/1")];
    let job = json!({"command": ["/bin/x", "hush-argument"], "env": {"P": "hush-variable"}, "name": "n"});
    let two = json!({"jobs": [job.clone(), job.clone()]});
    assert_eq!(server.post_with("/api/v1/agents", &headers, agent).status, 201);
    assert_eq!(server.post_with("/api/v1/agents/h/set", &headers, json!({"slots": 4})).status, 200);
    assert_eq!(server.post_with("/api/v1/queues/default/hold", &headers, json!({})).status, 200);
    assert_eq!(server.post_with("/api/v1/jobs", &headers, job).status, 201);
    assert_eq!(server.post_with("/api/v1/jobs/batch", &headers, two).status, 201);
    assert_eq!(server.post_with("/api/v1/jobs/1/kill", &headers, json!({})).status, 202);
    assert_eq!(server.post_with("/api/v1/jobs/1/kill", &headers, json!({})).status, 409);
    let (token, _) = server.token("t", "viewer");
    let entries = server.audit("");
    let seen: Vec<_> = entries.iter().rev().map(|e| (e["action"].clone(), e["object"].clone())).collect();
    let expected = [
        ("agent.add", "agent/h"),
        ("agent.set", "agent/h"),
        ("queue.hold", "queue/default"),
        ("job.submit", "job/1"),
        ("job.submit", "job/2-3"),
        ("job.kill", "job/1"),
        ("job.kill", "job/1"),
    ];
    assert_eq!(seen[..7], expected.map(|(action, object)| (json!(action), json!(object))), "{seen:?}");
    let kill = &entries[1];
    assert_eq!(
        (&kill["result"], &kill["user"], &kill["role"]),
        (&json!("refused"), &json!("admin"), &json!("admin"))
    );
    assert!(
        kill["refusal"].as_str().unwrap().contains("already over")
            && kill["from"].as_str().unwrap().starts_with("127.0.0.1:")
    );
    assert_eq!((&kill["reason"], &kill["via"]), (&json!("Störung 7"), &json!("test/1")));
    assert_eq!(entries.iter().filter(|entry| entry["detail"]["slots_before"] == 3).count(), 1);
    let all = Value::Array(entries).to_string();
    assert!(!all.contains("hush") && !all.contains(&token), "{all}");
    assert_eq!(server.audit("object=job/3").len(), 1, "a job is found in its batch");
    assert_eq!(server.audit("who=admin&since=2100-01-01T00:00:00Z").len(), 0);
}

#[test]
fn a_reason_is_in_the_audit_however_it_was_given() {
    let server = Server::start();
    let agent =
        json!({"name": "h", "dials_in": true, "secret": "0123456789abcdef0123456789abcdef", "slots": 3});
    assert_eq!(server.post("/api/v1/agents", agent).status, 201);
    server.submit();
    server.post("/api/v1/jobs/1/kill", json!({}));
    let cases = [
        ("/api/v1/agents/h/drain", json!({"reason": "new kernel"}), "agent.drain", "new kernel"),
        ("/api/v1/jobs/1/restart", json!({"force": true, "reason": "checked"}), "job.restart", "checked"),
        ("/api/v1/jobs/1/abandon", json!({"reason": "scrapped"}), "job.abandon", "scrapped"),
    ];
    for (path, body, action, reason) in cases {
        server.post(path, body.clone());
        let newest = || server.audit("limit=1")[0].clone();
        assert_eq!((&newest()["action"], &newest()["reason"]), (&json!(action), &json!(reason)), "{path}");
        server.post_with(path, &[("x-lastword-reason", "planned")], body);
        let entry = newest();
        assert_eq!((&entry["action"], &entry["reason"]), (&json!(action), &json!("planned")), "{path}");
        assert_eq!(entry["detail"]["reason"], json!(reason), "what the command says stays too: {path}");
    }
}

#[test]
fn a_version_guards_what_was_looked_at() {
    let server = Server::start();
    let queue = "/api/v1/queues/default";
    let first = server.get(queue);
    let tag = first.header("etag").to_owned();
    let conditional =
        |tag: &str| server.with(&server.token, "GET", queue, &[("if-none-match", tag)], &Value::Null);
    let same = conditional(&tag);
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, tag.as_str()));
    server.submit();
    assert_eq!(conditional(&tag).status, 200, "another job waits in it");
    let hold = |tag: &str| server.post_with("/api/v1/queues/default/hold", &[("if-match", tag)], json!({}));
    assert_eq!(hold(&tag).status, 200, "nobody changed it");
    let late = hold(&tag);
    assert_eq!((late.status, late.kind().as_str()), (412, "changed"));
    assert_eq!(hold("*").status, 200);
    let job = server.get("/api/v1/jobs/1").header("etag").to_owned();
    server.post("/api/v1/jobs/1/hold", json!({}));
    let kill = |tag: &str| server.post_with("/api/v1/jobs/1/kill", &[("if-match", tag)], json!({})).status;
    assert_eq!(kill(&job), 412);
    let now = server.get("/api/v1/jobs/1").header("etag").to_owned();
    assert_eq!((kill(&format!("\"other\", {now}")), kill(&now)), (202, 412));
    assert_eq!(server.audit("limit=1")[0]["result"], "refused");
}

#[test]
fn the_same_key_has_one_effect_also_at_the_same_time() {
    let server = Server::start();
    let create = |key: &str, name: &str| {
        let body = json!({"name": name, "held": true});
        server.post_with("/api/v1/queues", &[("idempotency-key", key)], body)
    };
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| create("k", "q"))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed") == "true").count();
    assert!(answers.iter().all(|answer| answer.status == 201), "{}", answers[0].status);
    assert_eq!(replayed, 7);
    assert_eq!(server.audit("object=queue/q").len(), 2, "created and held, once");
    let other = create("k", "other");
    assert_eq!((other.status, other.kind().as_str()), (422, "key-reused"));
    assert_eq!(create("l", "q").kind(), "name-taken");
    // What was refused may be tried again under its key when things stand differently.
    assert_eq!(server.call("DELETE", "/api/v1/queues/q", Vec::new()).status, 204);
    assert_eq!(create("l", "q").status, 201);
    let batch = || {
        let jobs = json!({"jobs": [{"command": ["/bin/true"]}, {"command": ["/bin/true"]}]});
        server.post_with("/api/v1/jobs/batch", &[("idempotency-key", "b")], jobs).json()
    };
    assert_eq!((batch(), batch()), (json!({"ids": [1, 2]}), json!({"ids": [1, 2]})));
    let token = || {
        let body = json!({"name": "t", "role": "viewer"});
        server.post_with("/api/v1/tokens", &[("idempotency-key", "t")], body)
    };
    assert_eq!((token().status, token().kind().as_str()), (201, "shown-once"));
    // Another user's key is another key.
    let (bert, _) = server.token("bert", "admin");
    let his =
        server.with(&bert, "POST", "/api/v1/queues", &[("idempotency-key", "k")], &json!({"name": "r"}));
    assert_eq!(his.status, 201);
    assert_eq!(create(&"x".repeat(256), "s").status, 400);
}

/// The lines of a stream.
struct Stream(std::io::Lines<BufReader<TcpStream>>);

impl Stream {
    fn open(server: &Server, token: &str, query: &str, last: Option<u64>) -> Stream {
        let mut socket = TcpStream::connect(server.http).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let last = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
        let head = format!(
            "GET /api/v1/events{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n{last}\r\n"
        );
        socket.write_all(head.as_bytes()).unwrap();
        let mut stream = Stream(BufReader::new(socket).lines());
        assert_eq!(stream.0.next().unwrap().unwrap(), "HTTP/1.1 200 OK");
        stream
    }

    /// The next event: its name and its data. `None` at the end of the stream.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut name = None;
        loop {
            let line = self.0.next()?.unwrap();
            if let Some(text) = line.strip_prefix("event: ") {
                name = Some(text.to_owned());
            } else if let (Some(text), Some(name)) = (line.strip_prefix("data: "), name.take()) {
                return Some((name, serde_json::from_str(text).unwrap()));
            }
        }
    }

    /// As many as that, each as `object status-or-kind`.
    fn some(&mut self, count: usize) -> Vec<String> {
        let word = |(name, data): (String, Value)| {
            let what = data["data"]["status"].as_str().unwrap_or(&name);
            format!("{} {what}", data["object"].as_str().unwrap_or("-"))
        };
        (0..count).map(|_| word(self.next().expect("goes on"))).collect()
    }
}

#[test]
fn what_happens_is_told_live_and_after_a_break_without_a_gap() {
    let server = Server::start();
    super::agent::start(&server, true);
    let mut all = Stream::open(&server, &server.token, "?kind=job,queue.held", None);
    let mut one = Stream::open(&server, &server.token, "?job=2", None);
    server.submit();
    server.submit();
    server.post("/api/v1/queues/default/hold", json!({}));
    for id in [1, 2] {
        server.get(&format!("/api/v1/jobs/{id}?wait=30s"));
    }
    let mut told = all.some(5);
    told.sort();
    assert_eq!(
        told,
        ["job/1 Dispatched", "job/1 Error", "job/2 Dispatched", "job/2 Error", "queue/default queue.held"]
    );
    assert_eq!(one.some(3), ["job/2 Dispatched", "job/2 Error", "job/2 Error"], "its status and its outcome");
    drop(all);
    // Whatever was told before is told again from where one left off, in the same order and with what came since.
    let from_the_start = Stream::open(&server, &server.token, "?kind=job.status", Some(0)).some(4);
    let list = server.get("/api/v1/events/list?kind=job.status").json();
    let items = list["items"].as_array().unwrap();
    let word = |event: &Value| {
        format!("{} {}", event["object"].as_str().unwrap(), event["data"]["status"].as_str().unwrap())
    };
    assert_eq!(from_the_start, items.iter().rev().map(word).collect::<Vec<_>>());
    let last = items[0]["number"].as_u64().unwrap();
    let mut rest = Stream::open(&server, &server.token, "?queue=default", Some(last));
    server.post("/api/v1/queues/default/release", json!({}));
    let next = rest.next().unwrap();
    assert!(next.1["number"].as_u64().unwrap() > last);
    let page = server.get("/api/v1/events/list?kind=job.status&limit=3").json();
    let next = server.get(&format!(
        "/api/v1/events/list?kind=job.status&cursor={}",
        page["next_cursor"].as_str().unwrap()
    ));
    assert_eq!(
        (page["items"].as_array().unwrap().len(), next.json()["items"].as_array().unwrap().len()),
        (3, 1)
    );
    for wrong in ["?kind=jobs", "?job=x", "?object=thing", "?colour=red"] {
        let answer = server.get(&format!("/api/v1/events{wrong}"));
        assert_eq!((answer.status, answer.kind().as_str()), (400, "unreadable"), "{wrong}");
    }
}

#[test]
fn who_asks_for_what_is_not_there_is_told_so_and_who_may_not_read_any_more_is_cut_off() {
    let server = Server::start();
    let (token, id) = server.token("anna", "viewer");
    let mut stream = Stream::open(&server, &token, "", Some(1_000_000));
    let (name, data) = stream.next().unwrap();
    assert!(name == "gap" && data["text"].as_str().unwrap().contains("went back in time"), "{name} {data}");
    server.submit();
    assert_eq!(stream.some(1), ["job/1 Queued"]);
    assert_eq!(server.call("DELETE", &format!("/api/v1/tokens/{id}"), Vec::new()).status, 204);
    server.submit();
    let (name, data) = stream.next().unwrap();
    assert!(name == "cut-off" && data["text"].as_str().unwrap().contains("revoked"), "{name} {data}");
    assert_eq!(stream.next(), None);
}

#[test]
fn a_stop_ends_the_streams() {
    let mut server = Server::start();
    let mut stream = Stream::open(&server, &server.token.clone(), "", None);
    drop(server.stop.take());
    assert_eq!(stream.next(), None);
}

#[test]
fn lists_by_name_are_paged_and_heads_and_options_are_answered() {
    let server = Server::start();
    for name in ["a", "b"] {
        server.post("/api/v1/queues", json!({"name": name}));
    }
    let page = server.get("/api/v1/queues?limit=2").json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next_cursor"]), (2, &json!("b")));
    let next = server.get("/api/v1/queues?limit=2&cursor=b").json();
    assert_eq!((&next["items"][0]["name"], &next["next_cursor"]), (&json!("default"), &Value::Null));
    assert_eq!(server.get("/api/v1/agents?limit=0").status, 400);
    for name in ["t1", "t2"] {
        server.token(name, "viewer");
    }
    let tokens = server.get("/api/v1/tokens?limit=2").json();
    let cursor = tokens["next_cursor"].as_str().unwrap().replace(' ', "%20");
    let rest = server.get(&format!("/api/v1/tokens?limit=2&cursor={cursor}")).json();
    assert_eq!((&rest["items"][0]["name"], &rest["next_cursor"]), (&json!("t2"), &Value::Null));
    let head = server.call("HEAD", "/api/v1/queues/a", Vec::new());
    assert_eq!((head.status, head.body.len(), head.header("etag").is_empty()), (200, 0, false));
    let options = server.call("OPTIONS", "/api/v1/queues", Vec::new());
    assert_eq!((options.status, options.body.len()), (204, 0));
    assert!(options.header("allow").contains("POST") && options.header("allow").contains("GET"));
}
