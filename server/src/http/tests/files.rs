//! Files that agents kept: stored, read from wherever they are, lost, removed.

use super::agent::{self, Kept, Now, Script};
use super::{DEADLINE, Limits, Server, StoreOf};
use crate::db::{FileChange, Place as Where};
use crate::files::{Place, Rules, Store};
use crate::settings;
use job::JobId;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More than a part of an object.
fn great() -> Vec<u8> {
    (0..9_000_000u32).map(|n| (n % 241) as u8).collect()
}

fn kept(name: &'static str, content: &[u8]) -> Kept {
    Kept { name, content: content.to_vec(), now: Now::Same }
}

fn folder(root: &Path, rules: Rules) -> Option<(Store, Rules)> {
    let place = Place::of(&settings::Files::default(), root).unwrap().unwrap();
    Some((Store::new(place, 0), rules))
}

/// Objects younger than a week are not touched.
fn rules() -> Rules {
    Rules { orphans_age: Duration::from_secs(7 * 86_400), ..Rules::default() }
}

fn start(store: StoreOf<'_>) -> Server {
    Server::start_with(Limits::of_open_files(1_024), store)
}

/// A job that is over, whose files the agent tells of; it is connected if `connected`.
fn done(server: &Server) -> u64 {
    let id = server.submit();
    server.get(&format!("/api/v1/jobs/{id}?wait=30s"));
    id
}

/// Waits until each file is in one of these states.
fn until(server: &Server, id: u64, states: &[&str]) -> Vec<Value> {
    let is_there = |list: &Value| {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        !items.is_empty() && items.iter().all(|file| states.contains(&file["state"].as_str().unwrap()))
    };
    let list = server.until(&format!("/api/v1/jobs/{id}/files"), is_there);
    list["items"].as_array().unwrap().clone()
}

fn path(id: u64, name: &str) -> String {
    format!("/api/v1/jobs/{id}/files/{}", name.replace('/', "%2F"))
}

/// Every object of the store but its mark.
fn objects(server: &Server) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![server.root.path().join("files")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false if entry.file_name() == "lastword-store" => {}
                false => found.push(entry.path()),
            }
        }
    }
    found
}

fn wait(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn files_are_stored_and_read_with_the_agent_away_and_the_agent_is_told() {
    let server = start(&|root| folder(root, rules()));
    let script =
        Script::with_files(vec![kept("report/sum.pdf", &great()), kept("../../x", b""), kept("y", b"hello")]);
    agent::introduce(&server);
    let task = agent::connect(&server, &script);
    let id = done(&server);
    let files = until(&server, id, &["stored"]);
    assert_eq!(files.len(), 3);
    assert!(
        files.iter().all(|file| file["stored_at"].is_string() && file["kept_at"].is_string()),
        "{files:?}"
    );
    wait("the word to the agent", || *script.words.lock().unwrap() == [3]);
    task.abort();
    server.until("/api/v1/agents/host1", |agent| agent["connected"] == false);
    let all = server.get(&path(id, "report/sum.pdf"));
    assert_eq!((all.status, all.body == great()), (200, true));
    assert_eq!(all.header("etag"), format!("\"{}\"", all.header("x-sha256")));
    let part = server.get(&format!("{}?offset=8388600&limit=100", path(id, "report/sum.pdf")));
    assert_eq!(part.body, great()[8_388_600..8_388_700]);
    assert_eq!(server.get(&format!("{}?offset=4", path(id, "y"))).body, b"o");
    assert_eq!(server.get(&format!("{}?offset=400", path(id, "y"))).body, b"");
    assert_eq!(
        (server.get(&path(id, "../../x")).status, server.get(&path(id, "none")).kind()),
        (200, "no-such-file".into())
    );
    let request = ureq::http::Request::builder()
        .uri(server.url(&path(id, "y")))
        .header("authorization", format!("Bearer {}", server.token))
        .header("if-none-match", server.get(&path(id, "y")).header("etag"));
    assert_eq!(server.send(request, Vec::new()).status, 304);
    let status = server.get("/api/v1/server/status").json();
    assert_eq!((&status["files"]["stored"], &status["files"]["trouble"]), (&json!(3), &Value::Null));
    let events = server.get(&format!("/api/v1/events/list?kind=file.stored&job={id}")).json();
    assert_eq!(events["items"].as_array().unwrap().len(), 3, "{events}");
    assert!(events.to_string().contains("report/sum.pdf"), "{events}");
    let outside = server.root.path().parent().unwrap().join("x");
    assert!(!outside.exists() && objects(&server).len() == 3, "no name leads out of the store");
}

#[test]
fn a_file_whose_agent_is_away_is_fetched_when_it_is_back_and_read_from_it_until_then() {
    let server = start(&|root| folder(root, rules()));
    let script = Script::with_files(vec![kept("y", b"hello")]);
    agent::introduce(&server);
    script.change("y", Now::Failing);
    let task = agent::connect(&server, &script);
    let id = done(&server);
    server.until(&format!("/api/v1/jobs/{id}/files"), |list| list["items"][0]["reason"].is_string());
    assert_eq!(server.get(&path(id, "y")).kind(), "agent-cannot");
    task.abort();
    server.until("/api/v1/agents/host1", |agent| agent["connected"] == false);
    assert_eq!(server.get(&path(id, "y")).kind(), "agent-away");
    assert_eq!(until(&server, id, &["with-agent"]).len(), 1);
    script.change("y", Now::Same);
    agent::connect(&server, &script);
    until(&server, id, &["stored"]);
}

#[test]
fn a_file_that_changed_or_went_on_the_agents_disk_is_told_as_lost_and_never_stored() {
    let server = start(&|root| folder(root, rules()));
    let script = Script::with_files(vec![
        kept("longer", b"1"),
        kept("other", b"12"),
        kept("gone", b"123"),
        kept("good", b"1234"),
    ]);
    script.change("longer", Now::Other(b"11".to_vec()));
    script.change("other", Now::Other(b"13".to_vec()));
    script.change("gone", Now::Gone);
    agent::introduce(&server);
    agent::connect(&server, &script);
    let id = done(&server);
    let files = until(&server, id, &["stored", "lost"]);
    let told: Vec<_> = files.iter().map(|file| format!("{} {}", file["name"], file["state"])).collect();
    assert_eq!(
        told,
        ["\"gone\" \"lost\"", "\"good\" \"stored\"", "\"longer\" \"lost\"", "\"other\" \"lost\""]
    );
    for (name, why) in [("longer", "2 bytes"), ("other", "SHA-256"), ("gone", "it is not there")] {
        let answer = server.get(&path(id, name));
        assert_eq!((answer.status, answer.kind().as_str()), (410, "gone"));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("lost") && detail.contains(why), "{detail}");
    }
    assert_eq!(objects(&server).len(), 1, "nothing of the others stays");
    wait("the word to the agent", || *script.words.lock().unwrap() == [4]);
    let run = server.database.runs(JobId(id)).unwrap()[0].id;
    let lost = server.database.files(run).unwrap().into_iter().filter(|file| file.place == Where::Lost);
    assert_eq!(lost.count(), 3);
}

#[test]
fn without_a_store_files_stay_with_their_agents() {
    let server = Server::start();
    let script = Script::with_files(vec![kept("y", &great())]);
    agent::introduce(&server);
    agent::connect(&server, &script);
    let id = done(&server);
    assert_eq!(until(&server, id, &["with-agent"])[0]["bytes"], 9_000_000);
    assert_eq!(server.get(&path(id, "y")).body, great());
    assert_eq!(server.get(&format!("{}?offset=8999998", path(id, "y"))).body, great()[8_999_998..]);
    script.change("y", Now::Gone);
    assert_eq!(server.get(&path(id, "y")).kind(), "gone");
    assert_eq!(server.get("/api/v1/server/status").json()["files"]["store"], Value::Null);
}

#[test]
fn a_store_that_cannot_be_used_is_a_warning_and_is_tried_until_it_can() {
    let share = tempfile::tempdir().unwrap();
    let path = share.path().join("share");
    let server = start(&|root| {
        let settings =
            settings::Files { url: format!("file://{}", path.display()), ..settings::Files::default() };
        Some((Store::new(Place::of(&settings, root).unwrap().unwrap(), 0), rules()))
    });
    agent::introduce(&server);
    agent::connect(&server, &Script::with_files(vec![kept("y", b"hello")]));
    let id = done(&server);
    let ready = server.until("/readyz", |ready| ready["warnings"].is_array());
    assert_eq!(ready["status"], "ok", "nothing else suffers");
    assert!(ready.to_string().contains("is it mounted"), "{ready}");
    std::fs::create_dir(&path).unwrap();
    until(&server, id, &["stored"]);
    server.until("/readyz", |ready| ready["warnings"].is_null());
    // Unmounted: what is there now is not our store, and nothing is concluded from what it lacks.
    std::fs::rename(&path, share.path().join("away")).unwrap();
    std::fs::create_dir(&path).unwrap();
    server.get(&super::files::path(id, "y"));
    let other = done(&server);
    server.until("/readyz", |ready| ready.to_string().contains("lacks this server's mark"));
    assert_eq!(until(&server, id, &["stored"]).len(), 1);
    assert_eq!(until(&server, other, &["with-agent"]).len(), 1);
    assert!(std::fs::read_dir(&path).unwrap().next().is_none(), "and nothing is written into it");
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(share.path().join("away"), &path).unwrap();
    until(&server, other, &["stored"]);
    std::fs::write(path.join("lastword-store"), "0123").unwrap();
    let third = done(&server);
    server.until("/readyz", |ready| ready.to_string().contains("mark of another server"));
    assert_eq!(until(&server, third, &["with-agent"]).len(), 1);
}

#[test]
fn what_the_store_lost_is_fetched_again_and_lost_for_good_only_if_the_agent_lost_it_too() {
    let server = start(&|root| folder(root, rules()));
    let script = Script::with_files(vec![kept("y", b"hello")]);
    agent::introduce(&server);
    agent::connect(&server, &script);
    let id = done(&server);
    until(&server, id, &["stored"]);
    let remove = || objects(&server).into_iter().for_each(|object| std::fs::remove_file(object).unwrap());
    remove();
    assert_eq!(server.get(&path(id, "y")).body, b"hello", "its agent has it still");
    wait("it to be stored again", || objects(&server).len() == 1);
    until(&server, id, &["stored"]);
    script.change("y", Now::Gone);
    remove();
    assert_eq!(server.get(&path(id, "y")).kind(), "gone");
    let lost = until(&server, id, &["lost"]);
    let reason = lost[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("the file store does not have it any more") && reason.contains("it is not there"),
        "{reason}"
    );
}

#[test]
fn files_go_by_age_and_amount_and_with_their_job() {
    let server = start(&|root| folder(root, Rules { bytes_max: 15, ..rules() }));
    let script = Script::with_files(vec![kept("y", b"hello")]);
    agent::introduce(&server);
    agent::connect(&server, &script);
    let ids: Vec<u64> = (0..3).map(|_| done(&server)).collect();
    for id in &ids {
        until(&server, *id, &["stored"]);
    }
    script.change("y", Now::Same);
    server.runtime.block_on(server.handle.forget(vec![JobId(ids[0])])).unwrap();
    wait("the object of the deleted job to go", || objects(&server).len() == 2);
    assert_eq!(server.get(&format!("/api/v1/jobs/{}/files", ids[0])).status, 404);
    let run = server.database.runs(JobId(ids[1])).unwrap()[0].id;
    let removed = FileChange::Removed {
        run,
        name: "y".into(),
        reason: "removed by [retention] files_age".into(),
        at_ms: 7,
    };
    server.runtime.block_on(server.handle.files(vec![removed], Vec::new())).unwrap();
    wait("the object of the removed file to go", || objects(&server).len() == 1);
    let answer = server.get(&path(ids[1], "y"));
    assert_eq!(answer.status, 410);
    assert!(answer.json()["detail"].as_str().unwrap().contains("files_age"));
}

#[test]
fn objects_that_nothing_names_go_when_they_are_old_and_others_stay() {
    let orphan = "77/019aa7d1-e27b-7001-8203-040506070809/0123456789012345678901234567890123456789";
    for (age, stays) in [(Duration::ZERO, false), (Duration::from_secs(3_600), true)] {
        let server = start(&|root| {
            let folder_of = root.join("files").join(orphan);
            std::fs::create_dir_all(folder_of.parent().unwrap()).unwrap();
            std::fs::write(&folder_of, "x").unwrap();
            std::fs::write(root.join("files/readme.txt"), "somebody else's").unwrap();
            std::fs::write(folder_of.with_extension("#1").with_file_name("half#1"), "x").unwrap();
            folder(root, Rules { orphans_age: age, ..rules() })
        });
        let file = server.root.path().join("files").join(orphan);
        let half = file.with_file_name("half#1");
        let left = || file.exists();
        if !stays {
            wait("the orphan to go", || !left());
        }
        agent::introduce(&server);
        agent::connect(&server, &Script::with_files(vec![kept("y", b"hello")]));
        let id = done(&server);
        until(&server, id, &["stored"]);
        assert_eq!((left(), server.root.path().join("files/readme.txt").exists()), (stays, true));
        let _ = half; // removed by its own age, see `files::tests`
    }
}

#[cfg(feature = "s3")]
#[test]
fn a_bucket_stores_what_agents_kept_and_gives_it_back() {
    use crate::files::fake_s3::{Bucket, KEY};
    use axum::http::StatusCode;
    use std::os::unix::fs::PermissionsExt;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let bucket = Bucket::default();
    let endpoint = runtime.block_on(bucket.serve());
    bucket.fail(Some(StatusCode::INTERNAL_SERVER_ERROR));
    let server = Server::start_on(runtime, Limits::of_open_files(1_024), &|root| {
        let file = root.join("credentials");
        std::fs::write(&file, format!("aws_access_key_id={KEY}\naws_secret_access_key=hush\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let settings = settings::Files {
            url: "s3://files/lastword".into(),
            endpoint: Some(endpoint.clone()),
            credentials_file: Some(file),
            ..settings::Files::default()
        };
        Some((Store::new(Place::of(&settings, root).unwrap().unwrap(), 0), rules()))
    });
    let script = Script::with_files(vec![kept("report/sum.pdf", &great()), kept("y", b"hello")]);
    agent::introduce(&server);
    let task = agent::connect(&server, &script);
    let id = done(&server);
    let ready = server.until("/readyz", |ready| ready["warnings"].is_array());
    assert!(!ready.to_string().contains("hush"), "{ready}");
    bucket.fail(None);
    until(&server, id, &["stored"]);
    task.abort();
    server.until("/api/v1/agents/host1", |agent| agent["connected"] == false);
    assert!(server.get(&path(id, "report/sum.pdf")).body == great());
    assert_eq!(server.get(&format!("{}?offset=1&limit=2", path(id, "y"))).body, b"el");
    let objects = bucket.objects();
    assert_eq!((objects.len(), bucket.uploads()), (3, 0), "two files and the mark");
    bucket.remove(objects.iter().find(|(_, content)| **content == b"hello").unwrap().0);
    assert_eq!(server.get(&path(id, "y")).kind(), "agent-away", "its agent may have it still");
    assert_eq!(until(&server, id, &["stored", "with-agent"]).len(), 2);
    agent::connect(&server, &script);
    until(&server, id, &["stored"]);
    assert_eq!(bucket.objects().len(), 3);
}
