//! The server is destroyed, and a backup takes its place.

use anyhow::{Context, Result, ensure};
use api::{JobSubmit, RestartPolicy};
use job::RestartSafe;
use serde_json::Value;
use spool::Shelf;
use std::process::Output;
use tests::{Dialling, End, Site, Way, ledger_job, on_site, wait_until};

const SEVEN: Way = Way { sleep_ms: 0, end: End::Code(7) };

#[test]
fn what_happened_since_the_backup_comes_back_from_the_agents_and_nothing_is_started_twice() {
    on_site(|site| {
        site.add_agent("host2", Dialling::In)?;
        site.client().create_queue("later", &[])?;
        let ledger = site.ledger();
        let seven = ledger_job(ledger.path(), SEVEN)?;
        let over = site.client().submit(&seven)?;
        site.client().wait(over)?;
        let running = site.client().submit(&site.gated()?)?;
        site.client().wait_running(running)?;
        let later = JobSubmit { queue: Some("later".to_owned()), ..seven.clone() };
        let waiting = site.client().submit(&later)?;
        let backup = back_up(site)?;
        // Since the backup: the one that ran ends, the one that waited runs on host2, a new one is submitted.
        site.open_gate()?;
        site.client().attachment("later", "attach", "host2")?;
        let new = site.client().submit(&seven)?;
        let all = [over, running, waiting, new];
        for id in all {
            ensure!(SEVEN.end.fits(&site.client().wait(id)?), "job {id}");
        }
        destroy(site)?;
        site.agents[1].vanish()?;
        let restored = server_verb(site, &["restore", &backup])?;
        ensure!(restored.status.success(), "{restored:?}");
        site.server.restart()?;
        site.wait_connected("host1")?;
        // Nobody can tell whether host2 ran it, so nobody else gets it.
        site.client().attachment("later", "attach", "host1")?;
        for id in [over, running, new] {
            wait_until(&format!("job {id} to be back"), || {
                Ok(site.client().job(id).is_ok_and(|job| SEVEN.end.fits(&job)))
            })?;
        }
        let why = site.client().why(waiting)?;
        ensure!(why.contains("restored") && why.contains("host2") && !why.contains("host1,"), "{why}");
        site.agents[1].start()?;
        wait_until("the recovery to be over", || Ok(status(site)?["recovery"].is_null()))?;
        for id in all {
            let job = site.client().wait(id)?;
            ensure!(SEVEN.end.fits(&job), "{job:#?}");
            ensure!(ledger.of(id)?.len() == 1, "job {id} was executed {} times", ledger.of(id)?.len());
        }
        ensure!(status(site)?["strays"] == 0, "nothing is left over");
        let next = site.client().submit(&seven)?;
        ensure!(next > new, "no number is given twice");
        ensure!(SEVEN.end.fits(&site.client().wait(next)?));
        let checked = site.lastword(&["server", "check"])?.output()?;
        ensure!(checked.status.success(), "{checked:?}");
        Ok(())
    });
}

/// Fails with 9 at first, and is all right when it is done again.
fn fails_once(site: &Site, name: &str) -> JobSubmit {
    let mark = site.path().join(name);
    let script = format!("[ -e {0} ] && exit 0; : > {0}; exit 9", mark.display());
    JobSubmit {
        command: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
        restart_safe: Some(RestartPolicy(RestartSafe::AtLeastOnce)),
        ..JobSubmit::default()
    }
}

#[test]
fn a_job_that_was_begun_again_since_the_backup_is_over_as_its_last_attempt_was() {
    on_site(|site| {
        let ends = |site: &Site, id: u64, code: u8| -> Result<()> {
            let job = site.client().wait(id)?;
            ensure!(End::Code(code).fits(&job), "{job:#?}");
            Ok(())
        };
        let old = site.client().submit(&fails_once(site, "old"))?;
        ends(site, old, 9)?;
        let backup = back_up(site)?;
        let new = site.client().submit(&fails_once(site, "new"))?;
        ends(site, new, 9)?;
        for id in [old, new] {
            site.client().change(id, "restart")?;
            ends(site, id, 0)?;
        }
        destroy(site)?;
        let restored = server_verb(site, &["restore", &backup])?;
        ensure!(restored.status.success(), "{restored:?}");
        site.server.restart()?;
        wait_until("the recovery to be over", || Ok(status(site)?["recovery"].is_null()))?;
        for id in [old, new] {
            ends(site, id, 0)?;
            let runs = site.client().job(id)?.runs;
            let codes: Vec<Option<u8>> = runs.iter().map(|run| run.exit_code).collect();
            ensure!(codes == [Some(9), Some(0)], "{runs:#?}");
        }
        ensure!(status(site)?["strays"] == 0, "nothing is left over");
        let checked = site.lastword(&["server", "check"])?.output()?;
        ensure!(checked.status.success(), "{checked:?}");
        Ok(())
    });
}

#[test]
fn an_agent_that_cannot_read_what_it_settled_since_the_backup_says_so_and_nothing_is_started_before_a_person_decides()
 {
    on_site(|site| {
        site.client().create_queue("later", &[])?;
        let (ledger, seven) = (site.ledger(), ledger_job(site.ledger().path(), SEVEN)?);
        let later = JobSubmit { queue: Some("later".to_owned()), ..seven };
        let job = site.client().submit(&later)?;
        let backup = back_up(site)?;
        site.client().attachment("later", "attach", "host1")?;
        let run = site.client().wait(job)?.runs[0].run_id.parse()?;
        wait_until("it to be settled", || Ok(site.agent()?.count(Shelf::Settled) == 1))?;
        damage(&site.agent()?.root().run(Shelf::Settled, run).log())?;
        destroy(site)?;
        ensure!(server_verb(site, &["restore", &backup])?.status.success());
        site.server.restart()?;
        site.wait_connected("host1")?;
        site.client().attachment("later", "attach", "host1")?;
        wait_until("an operator to be told", || {
            let trouble = site.client().agent("host1")?.trouble;
            Ok(trouble.is_some_and(|trouble| trouble.contains("end-recovery")))
        })?;
        ensure!(site.agent()?.count(Shelf::Quarantined) == 1, "it is set aside");
        // Another connection finds it there, and says the same.
        site.agent()?.kill_network_processor()?;
        site.wait_away("host1")?;
        site.wait_connected("host1")?;
        let told = |trace: String| trace.matches("nobody can tell what they were").count();
        wait_until("the next account", || Ok(told(site.agent()?.trace()) == 2))?;
        ensure!(!status(site)?["recovery"].is_null() && ledger.of(job)?.len() == 1, "nothing is started");
        ensure!(site.lastword(&["server", "end-recovery", "--reason", "seen"])?.output()?.status.success());
        site.client().wait(job)?;
        ensure!(ledger.of(job)?.len() == 2, "a person said so");
        Ok(())
    });
}

fn damage(log: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let log = std::fs::File::options().write(true).open(log)?;
    Ok(log.write_all_at(&[0x55; 64], 0)?)
}

#[test]
fn a_restore_is_refused_while_the_server_runs_and_a_rehearsal_changes_nothing() {
    on_site(|site| {
        let id = site.client().command(&["/bin/true"])?;
        site.client().wait(id)?;
        let backup = back_up(site)?;
        let refused = server_verb(site, &["restore", &backup])?;
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success() && text.contains("another central-server"), "{text}");
        let second = site.client().command(&["/bin/true"])?;
        site.client().wait(second)?;
        let rehearsed = server_verb(site, &["restore", "--rehearse", &backup])?;
        let text = String::from_utf8_lossy(&rehearsed.stdout).into_owned();
        ensure!(rehearsed.status.success() && text.contains("nothing was changed"), "{rehearsed:?}");
        ensure!(text.contains("1 jobs that were submitted since and placed"), "{text}");
        ensure!(site.client().job(second)?.status.0.is_final());
        Ok(())
    });
}

#[test]
fn a_rehearsal_names_what_people_did_since_the_backup_and_the_restore_lets_nobody_in_again() {
    on_site(|site| {
        let eve = site.path().join("eve.token");
        let eve_file = eve.to_string_lossy().into_owned();
        for name in ["eve", "bert"] {
            said(site, &["user", "add", name])?;
        }
        let token = said(
            site,
            &["token", "new", "eve", "--role", "admin", "--user", "eve", "--out", &eve_file, "-o", "name"],
        )?;
        said(site, &["queue", "create", "nightly"])?;
        said(site, &["queue", "attach", "nightly", "host1"])?;
        site.client().create_queue("later", &[])?;
        let waiting =
            JobSubmit { queue: Some("later".to_owned()), ..ledger_job(site.ledger().path(), SEVEN)? };
        let (held, canceled) = (site.client().submit(&waiting)?, site.client().submit(&waiting)?);
        let backup = back_up(site)?;
        rotate_secret(site)?;
        for verb in [
            &["token", "revoke", token.trim()][..],
            &["user", "disable", "bert"],
            &["user", "add", "zed"],
            &["agent", "drain", "host1"],
            &["agent", "set", "host1", "--slots", "3"],
            &["queue", "hold", "nightly"],
            &["queue", "set", "nightly", "--priority", "5"],
            &["queue", "detach", "nightly", "host1"],
            &["job", "hold", &held.to_string()],
            &["job", "cancel", &canceled.to_string()],
        ] {
            said(site, verb)?;
        }
        let lost = site.client().submit(&waiting)?;
        let jobs = [
            format!("would be lost: 1 jobs that were submitted since and never placed: {lost}"),
            format!("would wait again: 1 jobs that were taken back since: {canceled}"),
            format!("would not be held any more: 1 jobs: {held}"),
        ];
        let names = [
            "would stay revoked: tokens eve",
            "would stay disabled (if removed since, they are there and disabled): users bert",
            "would be lost: users zed",
            "would keep the secrets that they have now: agents host1",
            "not drained, now drained",
            "now 3",
            "queues nightly (not held, now held; priority 0, now 5; attached again: host1)",
        ];
        let names = || names.into_iter().chain(jobs.iter().map(String::as_str));
        let rehearsed = server_verb(site, &["restore", "--rehearse", &backup])?;
        let text = String::from_utf8_lossy(&rehearsed.stdout).into_owned();
        for name in names() {
            ensure!(text.contains(name), "{name}: {text}");
        }
        let json = server_verb(site, &["restore", "--rehearse", &backup, "-o", "json"])?;
        let json: Value = serde_json::from_slice(&json.stdout)?;
        ensure!(json["rehearsed"] == true && json["differences"]["users_lost"][0] == "zed", "{json}");
        site.server.kill()?;
        let restored = server_verb(site, &["restore", &backup])?;
        let text = String::from_utf8_lossy(&restored.stdout).into_owned();
        ensure!(restored.status.success(), "{restored:?}");
        for name in names() {
            ensure!(text.contains(name), "{name}: {text}");
        }
        site.server.restart()?;
        site.wait_connected("host1")?; // with the secret that it has now
        let mut as_eve = site.lastword(&["job", "list"])?;
        let refused = as_eve.env("LASTWORD_TOKEN_FILE", &eve).output()?;
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success() && text.contains("revoked"), "{refused:?}");
        let users: Value = serde_json::from_str(&said(site, &["user", "list", "-o", "json"])?)?;
        ensure!(users.to_string().contains("\"disabled\":true"), "{users}");
        ensure!(said(site, &["audit", "--object", "server"])?.contains("server.restore"));
        Ok(())
    });
}

/// host1 has a new secret, and the old one opens nothing.
fn rotate_secret(site: &mut Site) -> Result<()> {
    let new = site.path().join("new.secret");
    let file = new.to_string_lossy().into_owned();
    said(site, &["secret", "new", &file])?;
    said(site, &["agent", "secret", "host1", "--file", &file])?;
    std::fs::rename(&new, site.agent()?.secret_file())?;
    wait_until("the agent to have the new secret", || {
        Ok(site.agents[0].trace().contains("a secret file changed"))
    })?;
    said(site, &["agent", "secret", "host1", "--retire-old"]).map(drop)
}

fn said(site: &Site, arguments: &[&str]) -> Result<String> {
    let output = site.lastword(arguments)?.output()?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes a backup by the command line; its file.
pub(crate) fn back_up(site: &Site) -> Result<String> {
    let made = site.lastword(&["server", "backup", "-o", "json"])?.output()?;
    ensure!(made.status.success(), "{made:?}");
    let made: Value = serde_json::from_slice(&made.stdout)?;
    made["file"].as_str().map(str::to_owned).context("a backup without a file")
}

/// The server dies and takes its database along.
pub(crate) fn destroy(site: &mut Site) -> Result<()> {
    site.server.kill()?;
    for end in ["", "-wal", "-shm", ".lock"] {
        let path = site.server.data_root().join(format!("server.db{end}"));
        let _ = std::fs::remove_file(&path); // not each of them is there
    }
    Ok(())
}

pub(crate) fn server_verb(site: &Site, arguments: &[&str]) -> Result<Output> {
    let root = site.server.data_root();
    let mut command = site.lastword(&["server"])?;
    Ok(command.args(arguments).arg("--data-root").arg(root).output()?)
}

fn status(site: &Site) -> Result<Value> {
    site.client().call("GET", "/api/v1/server/status", None)?.json()
}
