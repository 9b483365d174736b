//! Files of jobs in the server's file store: they outlive their agents, and whatever is killed on the way.

use crate::outcomes::shell;
use crate::restore::{back_up, destroy, server_verb};
use anyhow::{Context, Result};
use api::{FileState, Gathering, JobFile, JobFiles, JobSubmit, ServerStatus, Status};
use os::signal::Signal;
use spool::Shelf;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tests::{CrashPoint, Dialling, Site, on_empty_site, on_site, wait_until};

/// More than one part of an object.
const GREAT: &str = "seq 1 1250000 > great.txt; sha256sum great.txt";

/// A job that leaves these files; its number.
fn keeping(site: &Site, text: &str, patterns: &[&str]) -> Result<u64> {
    let capture = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
    let id = site.client().submit(&JobSubmit { capture, ..shell(text) })?;
    assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
    Ok(id)
}

fn files(site: &Site, id: u64) -> Result<Vec<JobFile>> {
    let list: JobFiles = site.client().call("GET", &format!("/api/v1/jobs/{id}/files"), None)?.json()?;
    Ok(list.items)
}

/// Waits until so many files are there, all in this state.
fn wait_state(site: &Site, id: u64, count: usize, state: FileState) -> Result<Vec<JobFile>> {
    let mut found = Vec::new();
    let waited = wait_until(&format!("{count} files of job {id} to be {}", state.text()), || {
        found = files(site, id)?;
        Ok(found.len() == count && found.iter().all(|file| file.state == state))
    });
    waited.with_context(|| format!("{found:#?}"))?;
    Ok(found)
}

fn status(site: &Site) -> Result<ServerStatus> {
    site.client().call("GET", "/api/v1/server/status", None)?.json()
}

/// Everything in the store's folder but its mark.
fn objects(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false if entry.file_name() == "lastword-store" => {}
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// The store is in this folder, which need not be there.
fn share(path: &Path) -> (String, String) {
    ("LASTWORD_FILES__URL".to_owned(), format!("file://{}", path.display()))
}

fn get(site: &Site, id: u64, name: &str) -> Result<std::process::Output> {
    Ok(site.lastword(&["job", "files", &id.to_string(), "--get", name])?.output()?)
}

#[test]
fn a_file_outlives_its_agent_and_the_agents_data_root() {
    on_site(|site| {
        let text = format!("mkdir out; echo two > 'out/b c.txt'; {GREAT}");
        let id = keeping(site, &text, &["great.txt", "out/*"])?;
        let kept = wait_state(site, id, 2, FileState::Stored)?;
        let told = site.client().stdout(id)?;
        site.agent()?.stop()?;
        site.wait_away("host1")?;
        std::fs::remove_dir_all(site.agents[0].root().path())?;
        let output = get(site, id, "great.txt")?; // compares the SHA-256 by itself
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout.len() as u64, kept[0].bytes);
        assert!(told.starts_with(&kept[0].sha256), "the job saw the same: {told}");
        assert_eq!(get(site, id, "out/b c.txt")?.stdout, b"two\n");
        site.server.stop()?;
        site.server.restart()?;
        assert_eq!(get(site, id, "out/b c.txt")?.stdout, b"two\n");
        let table = String::from_utf8(site.lastword(&["job", "files", &id.to_string()])?.output()?.stdout)?;
        assert_eq!(table.matches("stored").count(), 2, "{table}");
        let status = status(site)?;
        assert_eq!((status.files.stored, status.files.with_agents, status.files.trouble), (2, 0, None));
        let output = String::from_utf8(site.lastword(&["job", "logs", &id.to_string()])?.output()?.stderr)?;
        assert!(output.contains("not connected"), "its output is the agent's alone: {output}");
        Ok(())
    });
}

#[test]
fn a_server_that_is_killed_amid_storing_goes_on_and_nothing_is_doubled_or_half() {
    for point in ["files.amid-upload", "files.before-complete", "files.before-commit"] {
        on_site(|site| {
            let crash = CrashPoint::new(point, site.path());
            crash.arm()?;
            let text = format!("echo small > small.txt; {GREAT}");
            let capture = vec!["*.txt".to_owned()];
            let id = site.client().submit(&JobSubmit { capture, ..shell(&text) })?;
            crash.wait_fired()?;
            wait_until("the server's end", || Ok(site.server.ended()?.is_some()))?;
            site.server.restart()?;
            wait_state(site, id, 2, FileState::Stored)?;
            let store = site.server.data_root().join("files");
            wait_until("nothing but the two files to be there", || Ok(objects(&store).len() == 2))?;
            let halves = |path: &PathBuf| path.to_string_lossy().contains('#');
            assert!(!objects(&store).iter().any(halves), "{:?}", objects(&store));
            site.agent()?.stop()?;
            assert_eq!(get(site, id, "small.txt")?.stdout, b"small\n");
            assert!(get(site, id, "great.txt")?.status.success());
            assert_eq!(status(site)?.files.stored, 2);
            Ok(())
        });
    }
}

#[test]
fn while_the_agent_or_the_store_is_away_a_file_stays_where_it_is_and_comes_later() {
    on_site(|site| {
        let folder = site.path().join("share");
        site.server.stop()?;
        site.server.restart_with(&[share(&folder)])?;
        site.wait_connected("host1")?;
        let id = keeping(site, "echo x > x.txt", &["x.txt"])?;
        wait_until("the trouble to be told", || Ok(status(site)?.files.trouble.is_some()))?;
        let ready = site.client().call("GET", "/readyz", None)?;
        assert!(ready.status == 200 && String::from_utf8_lossy(&ready.body).contains("is it mounted"));
        wait_state(site, id, 1, FileState::WithAgent)?;
        assert_eq!(get(site, id, "x.txt")?.stdout, b"x\n", "from the agent");
        site.agent()?.stop()?;
        site.wait_away("host1")?;
        std::fs::create_dir(&folder)?;
        wait_until("the store to be used", || Ok(status(site)?.files.trouble.is_none()))?;
        let refused = get(site, id, "x.txt")?;
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(why.contains("\"host1\" is not connected"), "{why}");
        site.agent()?.start()?;
        wait_state(site, id, 1, FileState::Stored)?;
        Ok(())
    });
}

#[test]
fn a_file_that_changed_on_the_agents_disk_is_lost_and_told_and_the_others_are_stored() {
    on_site(|site| {
        let folder = site.path().join("share");
        site.server.stop()?;
        site.server.restart_with(&[share(&folder)])?;
        site.wait_connected("host1")?;
        let id = keeping(site, "echo good > good.txt; echo evil > evil.txt", &["*.txt"])?;
        let run = site.client().job(id)?.runs[0].run_id.parse()?;
        wait_until("the run to be settled", || Ok(site.agents[0].count(Shelf::Settled) == 1))?;
        let dir = site.agents[0].root().run(Shelf::Settled, run);
        std::fs::write(dir.kept_file("evil.txt"), "good\n")?;
        std::fs::create_dir(&folder)?;
        wait_until("both to be decided", || {
            Ok(files(site, id)?.iter().all(|file| file.state != FileState::WithAgent))
        })?;
        let found = files(site, id)?;
        assert_eq!((found[0].state, found[1].state), (FileState::Lost, FileState::Stored), "{found:#?}");
        let reason = found[0].reason.as_deref().unwrap_or_default();
        assert!(reason.contains("SHA-256") && reason.contains("changed on the agent's disk"), "{reason}");
        let refused = get(site, id, "evil.txt")?;
        assert_eq!(refused.status.code(), Some(66), "{refused:?}");
        assert_eq!(objects(&folder).len(), 1);
        let events = site.client().call("GET", &format!("/api/v1/events/list?kind=file&job={id}"), None)?;
        let events = String::from_utf8_lossy(&events.body).into_owned();
        assert!(events.contains("file.lost") && events.contains("file.stored"), "{events}");
        Ok(())
    });
}

#[test]
fn an_agent_spares_what_is_not_stored_and_says_what_its_retention_took() {
    on_empty_site(|site| {
        let folder = site.path().join("share");
        site.server.stop()?;
        site.server.restart_with(&[share(&folder)])?;
        let mut agent = site.prepare_agent("host1", Dialling::In)?;
        agent.configure("settled_retention = \"1ms\"\n");
        site.add_prepared_agent(agent, Dialling::In, &[])?;
        let id = keeping(site, "echo x > x.txt", &["x.txt"])?;
        let other = site.client().script("echo other")?;
        site.client().wait(other)?;
        wait_until("the other run to go", || {
            site.agents[0].monitor().context("it runs")?.signal(Signal::HUP)?;
            Ok(site.agents[0].count(Shelf::Live) == 0 && site.agents[0].count(Shelf::Settled) == 1)
        })?;
        assert_eq!(get(site, id, "x.txt")?.stdout, b"x\n", "it is the one whose file is not stored");
        let gone = site.lastword(&["job", "logs", &other.to_string()])?.output()?;
        let why = String::from_utf8_lossy(&gone.stderr).into_owned();
        assert!(
            gone.status.code() == Some(66) && why.contains("removed by the agent's retention"),
            "{gone:?}"
        );
        std::fs::create_dir(&folder)?;
        wait_state(site, id, 1, FileState::Stored)?;
        wait_until("its run to go too", || {
            site.agents[0].monitor().context("it runs")?.signal(Signal::HUP)?;
            Ok(site.agents[0].count(Shelf::Settled) == 0)
        })?;
        assert_eq!(get(site, id, "x.txt")?.stdout, b"x\n", "from the store");
        Ok(())
    });
}

#[test]
fn files_past_their_age_are_removed_from_the_store_and_said_to_be() {
    on_site(|site| {
        let id = keeping(site, "echo x > x.txt", &["x.txt"])?;
        wait_state(site, id, 1, FileState::Stored)?;
        site.server.stop()?;
        site.server.restart_with(&[("LASTWORD_RETENTION__FILES_AGE".to_owned(), "1ms".to_owned())])?;
        let removed = wait_state(site, id, 1, FileState::Removed)?;
        assert!(removed[0].reason.as_deref().unwrap_or_default().contains("files_age"), "{removed:?}");
        wait_until("its object to go", || Ok(objects(&site.server.data_root().join("files")).is_empty()))?;
        let refused = get(site, id, "x.txt")?;
        let why = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(66) && why.contains("removed"), "{why}");
        Ok(())
    });
}

#[test]
fn a_restored_record_says_which_objects_it_misses_and_fetches_what_it_can() {
    on_site(|site| {
        let id = keeping(site, "echo x > x.txt", &["x.txt"])?;
        wait_state(site, id, 1, FileState::Stored)?;
        let lost = keeping(site, "echo y > y.txt", &["y.txt"])?;
        wait_state(site, lost, 1, FileState::Stored)?;
        // The record has both, the store has neither, and the agent has only one.
        let store = site.server.data_root().join("files");
        site.server.stop()?;
        let mut taken = Vec::new();
        for object in objects(&store) {
            taken.push((object.clone(), std::fs::read(&object)?));
            std::fs::remove_file(object)?;
        }
        let run = site.agents[0].root().list(Shelf::Settled)?.into_iter().max().context("a run")?;
        std::fs::remove_dir_all(site.agents[0].root().run(Shelf::Settled, run).path())?;
        site.server.restart()?;
        let gone = wait_state(site, lost, 1, FileState::Lost)?;
        let reason = gone[0].reason.as_deref().unwrap_or_default();
        assert!(reason.contains("the file store does not have it any more"), "{reason}");
        wait_until("the other one to be fetched again", || Ok(objects(&store).len() == 1))?;
        wait_state(site, id, 1, FileState::Stored)?;
        // Somebody finds the object: it is what it was.
        site.server.stop()?;
        for (object, content) in taken.into_iter().filter(|(_, content)| content == b"y\n") {
            std::fs::create_dir_all(object.parent().context("a folder")?)?;
            std::fs::write(object, content)?;
        }
        site.server.restart()?;
        wait_state(site, lost, 1, FileState::Stored)?;
        assert_eq!(get(site, lost, "y.txt")?.stdout, b"y\n");
        Ok(())
    });
}

#[test]
fn a_restored_server_knows_its_store_again_and_what_came_there_since_the_backup() {
    on_site(|site| {
        let before = keeping(site, "echo x > x.txt", &["x.txt"])?;
        wait_state(site, before, 1, FileState::Stored)?;
        let backup = back_up(site)?;
        let since = keeping(site, "echo y > y.txt", &["y.txt"])?;
        wait_state(site, since, 1, FileState::Stored)?;
        let store = site.server.data_root().join("files");
        let objects_before = objects(&store);
        destroy(site)?;
        let restored = server_verb(site, &["restore", &backup])?;
        anyhow::ensure!(restored.status.success(), "{restored:?}");
        site.server.restart()?;
        site.wait_connected("host1")?;
        wait_until("the later job to be back", || Ok(site.client().job(since).is_ok()))?;
        for id in [before, since] {
            wait_state(site, id, 1, FileState::Stored)?;
        }
        assert_eq!(objects(&store), objects_before, "nothing is doubled, and nothing was swept");
        site.agents[0].stop()?;
        assert_eq!(get(site, before, "x.txt")?.stdout, b"x\n");
        assert_eq!(get(site, since, "y.txt")?.stdout, b"y\n");
        Ok(())
    });
}

#[test]
fn another_store_is_not_used_before_the_files_are_moved_there() {
    on_site(|site| {
        let id = keeping(site, "echo x > x.txt", &["x.txt"])?;
        wait_state(site, id, 1, FileState::Stored)?;
        let (before, folder) = (site.server.data_root().join("files"), site.path().join("share"));
        site.server.stop()?;
        std::fs::create_dir(&folder)?;
        site.server.restart_with(&[share(&folder)])?;
        let trouble = || -> Result<String> { Ok(status(site)?.files.trouble.unwrap_or_default()) };
        wait_until("the trouble to be told", || Ok(trouble()?.contains("move them there")))?;
        assert_eq!(std::fs::read_dir(&folder)?.count(), 0, "nothing is written into it");
        wait_state(site, id, 1, FileState::Stored)?;
        std::fs::remove_dir(&folder)?;
        std::fs::rename(&before, &folder)?;
        wait_until("the trouble to be over", || Ok(trouble()?.is_empty()))?;
        site.agents[0].stop()?;
        assert_eq!(get(site, id, "x.txt")?.stdout, b"x\n");
        Ok(())
    });
}

#[test]
fn files_that_are_still_being_gathered_are_waited_for_and_never_look_like_none() {
    on_site(|site| {
        let go = site.path().join("go");
        // What the job leaves behind is waited for after its outcome and before its files.
        let text = format!(
            "echo x > x.txt; ln -s x.txt l.txt; (until [ -e {} ]; do sleep .05; done) &",
            go.display()
        );
        let capture = vec!["?.txt".to_owned(), "*.pdf".to_owned()];
        let job = JobSubmit { capture, leftovers: Some("wait".to_owned()), ..shell(&text) };
        let id = site.client().submit(&job)?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        let list: JobFiles = site.client().call("GET", &format!("/api/v1/jobs/{id}/files"), None)?.json()?;
        assert_eq!((list.gathering, list.items.len()), (Gathering::GoesOn, 0));
        let early = site.client().call("GET", &format!("/api/v1/jobs/{id}/files/x.txt"), None)?;
        anyhow::ensure!(
            early.status == 404 && String::from_utf8_lossy(&early.body).contains("still being gathered")
        );
        for arguments in [["--wait", "0s"].as_slice(), &["--wait", "100ms", "--get", "x.txt"]] {
            let late = site.lastword(&["job", "files", &id.to_string()])?.args(arguments).output()?;
            let told = String::from_utf8(late.stderr)?;
            anyhow::ensure!(
                late.status.code() == Some(75) && told.contains("still being gathered"),
                "{told}"
            );
        }
        let id = id.to_string();
        let listing = site
            .lastword(&["job", "files", &id, "--wait", "60s"])?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        std::fs::write(&go, "")?;
        let listed = listing.wait_with_output()?;
        let (table, told) = (String::from_utf8(listed.stdout)?, String::from_utf8(listed.stderr)?);
        anyhow::ensure!(listed.status.success() && table.contains("x.txt"), "{table} {told}");
        for text in ["no file to keep fits \"*.pdf\"", "l.txt (it is a symbolic link)"] {
            anyhow::ensure!(told.contains(text), "{told}");
        }
        assert_eq!(site.lastword(&["job", "files", &id, "--get", "x.txt"])?.output()?.stdout, b"x\n");
        Ok(())
    });
}

#[test]
fn a_check_of_the_configuration_finds_a_file_store_that_cannot_be_used() {
    on_empty_site(|site| {
        let (config, folder) = (site.path().join("checked.toml"), site.path().join("share"));
        let root = site.path().join("checked");
        let check = |files: &str| -> Result<(Option<i32>, String)> {
            let text =
                format!("[node]\nname = \"a\"\ndata_root = \"{}\"\n[files]\n{files}\n", root.display());
            std::fs::write(&config, text)?;
            let mut command = std::process::Command::new(tests::program("central-server")?);
            let output = command.args(["--check", "--config"]).arg(&config).output()?;
            Ok((output.status.code(), String::from_utf8(output.stderr)?))
        };
        let share = format!("url = \"file://{}\"", folder.display());
        let (code, told) = check(&share)?;
        anyhow::ensure!(code == Some(78) && told.contains("is it mounted?"), "{told}");
        std::fs::create_dir(&folder)?;
        assert_eq!(check(&share)?.0, Some(0));
        assert_eq!(check("url = \"file:files\"")?.0, Some(0), "that one is made by the server");
        anyhow::ensure!(!root.exists(), "a check makes nothing");
        let (code, told) = check("url = \"s3://bucket\"\ncredentials_file = \"none\"")?;
        anyhow::ensure!(code == Some(78) && told.contains("credentials file"), "{told}");
        Ok(())
    });
}

#[test]
fn whoever_asks_for_files_of_a_job_without_any_is_told_why_there_are_none() {
    on_site(|site| {
        let list = |id: u64| -> Result<JobFiles> {
            site.client().call("GET", &format!("/api/v1/jobs/{id}/files?wait=10s"), None)?.json()
        };
        let plain = keeping(site, "true", &[])?;
        assert_eq!(list(plain)?.gathering, Gathering::None);
        let told = site.lastword(&["job", "files", &plain.to_string()])?.output()?;
        anyhow::ensure!(told.status.success() && String::from_utf8(told.stderr)?.contains("--capture"));
        let capture = vec!["x".to_owned()];
        let running = site.client().submit(&JobSubmit { capture, ..shell("sleep 60") })?;
        wait_until("it to run", || Ok(site.client().job(running)?.status.0 == Status::Running))?;
        assert_eq!(list(running)?.gathering, Gathering::Waits, "and nobody waits for that");
        let told = site.lastword(&["job", "files", &running.to_string()])?.output()?;
        anyhow::ensure!(
            told.status.code() == Some(75) && String::from_utf8(told.stderr)?.contains("is not over")
        );
        site.client().call("POST", &format!("/api/v1/jobs/{running}/kill"), None)?;
        site.client().wait(running)?;
        let list = list(running)?;
        assert_eq!((list.gathering, list.items.len(), list.unkept.len()), (Gathering::Complete, 0, 1));
        Ok(())
    });
}
