//! What an operator does with the server itself: backups and checks as operations, the support bundle, what agents traced.

use super::{Answer, Server, agent};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use ureq::http::Request;

const BACKUPS: &str = "/api/v1/server/backups";
const CHECK: &str = "/api/v1/server/check";

impl Server {
    fn begin(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let request = Request::builder().method("POST").uri(self.url(path)).header("authorization", bearer);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request, body.to_string().into_bytes())
    }

    /// The end of an operation that was begun.
    fn over(&self, begun: &Answer) -> Value {
        assert_eq!(begun.status, 202, "{}", String::from_utf8_lossy(&begun.body));
        self.get(&format!("{}?wait=30s", begun.header("location"))).json()
    }

    /// The audit entries with this action, the oldest first.
    fn noted(&self, action: &str) -> Vec<Value> {
        let entries = self.get("/api/v1/audit").json()["items"].as_array().unwrap().clone();
        entries.into_iter().rev().filter(|entry| entry["action"] == action).collect()
    }
}

#[test]
fn a_backup_goes_on_by_itself_tells_what_came_of_it_and_is_audited_twice() {
    let server = Server::start();
    let headers = [("prefer", "respond-async, wait=1"), ("x-lastword-reason", "before the move")];
    let begun = server.begin(BACKUPS, &headers, &json!({}));
    assert_eq!((&begun.json()["kind"], &begun.json()["by"]), (&json!("backup"), &json!("admin")));
    let over = server.over(&begun);
    assert_eq!(
        (&over["state"], over["backup"]["bytes"].as_u64() > Some(0)),
        (&json!("done"), true),
        "{over}"
    );
    let progress = &over["progress"];
    assert_eq!((&progress["unit"], &progress["done"]), (&json!("bytes"), &progress["total"]), "{over}");
    let noted = server.noted("server.backup");
    let stages: Vec<_> = noted.iter().map(|entry| entry["detail"]["stage"].clone()).collect();
    assert_eq!(stages, [json!("begun"), json!("over")]);
    for entry in &noted {
        assert_eq!(entry["detail"]["operation"], over["id"], "{entry}");
        assert_eq!(
            (&entry["user"], &entry["reason"]),
            (&json!("admin"), &json!("before the move")),
            "{entry}"
        );
        assert!(entry["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{entry}");
    }
    assert_eq!(noted[1]["detail"]["file"], over["backup"]["file"]);
    assert_eq!(server.get("/api/v1/server/operations").json()["items"][0], over);
    let missing = server.get("/api/v1/server/operations/0-9");
    assert_eq!((missing.status, missing.kind().as_str()), (404, "no-such-operation"));
}

#[test]
fn who_waits_for_the_end_gets_what_came_of_it_as_before() {
    let server = Server::start();
    let made = server.post(BACKUPS, json!({"to": "one.backup"}));
    assert_eq!(made.status, 201, "{}", made.json());
    let again = server.post(BACKUPS, json!({"to": "one.backup"}));
    assert_eq!((again.status, again.kind().as_str()), (422, "invalid"));
    assert!(again.json()["detail"].as_str().unwrap().contains("replaces nothing"));
    let failed =
        server.over(&server.begin(BACKUPS, &[("prefer", "respond-async")], &json!({"to": "one.backup"})));
    assert_eq!(failed["state"], "failed");
    assert!(failed["failure"].as_str().unwrap().contains("replaces nothing"), "{failed}");
    let results: Vec<_> = server.noted("server.backup").iter().map(|entry| entry["result"].clone()).collect();
    assert_eq!(results, ["done", "done", "done", "refused", "done", "refused"].map(|result| json!(result)));
    let checked = server.post(CHECK, json!({}));
    assert_eq!((checked.status, &checked.json()["findings"]), (200, &json!([])));
    assert_eq!(server.noted("server.check")[1]["detail"]["contradictions"], 0);
}

#[test]
fn the_same_request_again_begins_nothing_and_is_told_of_the_first() {
    let server = Server::start();
    let headers = [("prefer", "respond-async"), ("idempotency-key", "k")];
    let first = server.begin(CHECK, &headers, &json!({}));
    let over = server.over(&first);
    let again = server.begin(CHECK, &headers, &json!({}));
    assert_eq!(again.json()["id"], over["id"]);
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    let other = server.begin(BACKUPS, &headers, &json!({}));
    assert_eq!((other.status, other.kind().as_str()), (422, "key-reused"));
    assert_eq!(server.noted("server.check").len(), 2, "it is audited once, beginning and end");
}

#[test]
fn what_an_agent_traced_is_read_from_it_through_the_server() {
    let server = Server::start();
    let path = "/api/v1/agents/host1/logs";
    assert_eq!(server.get(&format!("{path}/network-processor")).kind(), "no-such-agent");
    let task = agent::start(&server, true);
    let read = server.get(&format!("{path}/network-processor?tail=5000000"));
    assert_eq!((read.status, read.body == agent::output()), (200, true));
    assert!(read.header("content-type").starts_with("text/plain"));
    let unknown = server.get(&format!("{path}/job-processor"));
    assert!(unknown.status == 404 && unknown.json()["detail"].as_str().unwrap().contains("platform-agent"));
    task.abort();
    server.until("/api/v1/agents/host1", |agent| agent["connected"] == false);
    assert_eq!(server.get(&format!("{path}/platform-agent")).kind(), "agent-away");
}

/// What must not leave the host, as it is hidden in every place of this server where somebody may have put it.
struct Hidden {
    secrets: Vec<String>,
}

impl Hidden {
    fn in_server(server: &Server) -> Hidden {
        let shared = "hush-shared-secret-0123456789abcdef";
        let hex: String = shared.bytes().map(|byte| format!("{byte:02x}")).collect();
        let made = server.post("/api/v1/tokens", json!({"name": "ci", "role": "operator"})).json();
        let token = made["secret"].as_str().unwrap().to_owned();
        let foreign = "lw_deadbeef_hush-token-of-another-server-0123456789".to_owned();
        let agent = json!({"name": "h", "dials_in": true, "secret": shared});
        assert_eq!(server.post("/api/v1/agents", agent).status, 201);
        let job = json!({"command": ["/bin/x", "--key=hush-argument"], "env": {"PASSWORD": "hush-variable", "X": "hush-other"},
            "params": {"p": "hush-parameter"}, "name": "nightly"});
        assert_eq!(server.post("/api/v1/jobs", job).status, 201);
        let script = json!({"script": "#!/bin/sh\necho hush-script\n", "env": {"Y": "hush-script-variable"}});
        assert_eq!(server.post("/api/v1/jobs", script).status, 201);
        assert_eq!(server.post("/api/v1/jobs/1/kill", json!({})).status, 202);
        let reasons = [
            format!("lost {token}"),
            format!("found {foreign}"),
            "Authorization: Basic aHVzaC1iYXNpYw==".to_owned(),
            "sent Bearer hush-bearer-0123".to_owned(),
            "see https://anna:hush-in-reason@wiki.example/x".to_owned(),
            format!("password=hush-word and {shared}"),
        ];
        for reason in &reasons {
            let header = [("x-lastword-reason", reason.as_str())];
            assert_eq!(server.begin("/api/v1/queues/default/hold", &header, &json!({})).status, 200);
            assert_eq!(server.begin("/api/v1/agents/h/drain", &[], &json!({"reason": reason})).status, 200);
        }
        let trace = server.root.path().join("trace");
        std::fs::create_dir(&trace).unwrap();
        let lines = format!(
            "INFO x: {}\nDEBUG admin {} hex {hex} {}\n",
            reasons.join("\nWARN "),
            server.token,
            hex.to_uppercase()
        );
        std::fs::write(trace.join("central-server.log"), lines).unwrap();
        let hashes = server.handle.tokens().list().into_iter().map(|token| token.hash);
        let words = ["hush", "aHVzaC1iYXNpYw", "0123456789abcdef"].map(str::to_owned);
        let secret_of = |token: &str| token.rsplit('_').next().unwrap().to_owned();
        let secrets =
            [shared.to_owned(), hex.clone(), hex.to_uppercase(), secret_of(&token), secret_of(&server.token)];
        Hidden { secrets: secrets.into_iter().chain(words).chain(hashes).collect() }
    }
}

fn unpack(archive: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let read = |entry: std::io::Result<tar::Entry<'_, GzDecoder<&[u8]>>>| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (path.iter().skip(1).collect::<std::path::PathBuf>().display().to_string(), text)
    };
    archive.entries().unwrap().map(read).collect()
}

#[test]
fn a_support_bundle_tells_everything_about_the_server_and_no_secret_of_it() {
    let server = Server::start();
    let hidden = Hidden::in_server(&server);
    let made =
        server.begin("/api/v1/server/support-bundle", &[("x-lastword-reason", "ticket 7")], &json!({}));
    assert_eq!((made.status, made.header("content-type")), (200, "application/gzip"));
    assert!(made.header("content-disposition").contains("filename=\"lastword-a-"));
    let parts = unpack(&made.body);
    for (name, text) in &parts {
        let found: Vec<_> = hidden.secrets.iter().filter(|secret| text.contains(secret.as_str())).collect();
        assert!(found.is_empty(), "{name} tells {found:?}: {text}");
    }
    for (name, tells) in [
        ("INDEX.md", "What is never in it"),
        ("versions.json", env!("CARGO_PKG_VERSION")),
        ("config.json", "postgres://(left out)@db.example/lw"),
        ("status.json", "\"ready\": true"),
        ("readyz.json", "\"status\": 200"),
        ("metrics.txt", "lastword_"),
        ("agents.jsonl", "\"name\":\"h\""),
        ("queues.jsonl", "\"held\":true"),
        ("jobs.json", "\"Canceled\": 1"),
        ("events.jsonl", "queue.held"),
        ("audit.jsonl", "lost lw_"),
        ("tokens.jsonl", "\"role\":\"operator\""),
        ("database.json", "\"schema\": "),
        ("check.json", "\"findings\": []"),
        ("host.json", "Linux version"),
        ("operations.jsonl", "support-bundle"),
        ("backups.jsonl", ""),
        ("recovery.json", "null"),
        ("trace/central-server.log", "see https://(left out)@wiki.example/x"),
    ] {
        assert!(
            parts.get(name).is_some_and(|text| text.contains(tells)),
            "{name}: {tells}: {:?}",
            parts.get(name)
        );
        assert!(name == "INDEX.md" || parts["INDEX.md"].contains(&format!("- {name}, ")), "{name}");
    }
    assert!(parts["INDEX.md"].contains("nothing\n"), "{}", parts["INDEX.md"]);
    let noted = server.noted("server.support-bundle");
    assert_eq!(
        (&noted[0]["reason"], &noted[0]["detail"]["parts"]),
        (&json!("ticket 7"), &json!(parts.len() - 1))
    );
}

#[test]
fn a_support_bundle_has_as_much_as_was_asked_for() {
    let server = Server::start();
    for _ in 0..5 {
        server.submit();
    }
    let request = json!({"events": 3, "audit": 2, "check": false});
    let parts = unpack(&server.post("/api/v1/server/support-bundle", request).body);
    let lines = |name: &str| parts[name].lines().count();
    assert_eq!((lines("events.jsonl"), lines("audit.jsonl")), (3, 2));
    assert!(
        !parts.contains_key("check.json") && parts["INDEX.md"].contains("- check.json: nobody asked for it")
    );
    assert!(parts["INDEX.md"].contains("- trace/central-server.log: the trace cannot be read"));
    let refused = server.post("/api/v1/server/support-bundle", json!({"events": 20_001}));
    assert_eq!((refused.status, refused.kind().as_str()), (422, "invalid"));
}
