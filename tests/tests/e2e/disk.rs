//! A full disk loses no outcome and starts nothing that could lose one.

use anyhow::Result;
use api::Status;
use std::path::Path;
use std::time::Duration;
use tests::{Dialling, End, FileSystem, Volume, on_prepared_site, on_site, wait_for, wait_until};

/// A small file system in memory; `None` if this machine does not let us mount.
fn small(at: &Path) -> Result<Option<Volume>> {
    let mounted = Volume::mount(FileSystem::Tmpfs, at, 16)?;
    Ok(mounted.inspect_err(|why| eprintln!("not tried: {why}")).ok())
}

#[test]
fn a_full_disk_keeps_the_outcome_of_what_runs_and_refuses_what_is_new_until_there_is_room() {
    on_site(|site| {
        let Some(small) = small(&site.path().join("small"))? else { return Ok(()) };
        let mut agent = site.prepare_agent("tight", Dialling::In)?;
        agent.set_data_root(&small.path().join("agent"));
        site.introduce(&agent)?;
        agent.start()?;
        site.wait_connected("tight")?;
        let go = site.path().join("go");
        let text = format!("while [ ! -e {} ]; do sleep 0.02; done; exit 7", go.display());
        let on = |text: &str| {
            let command = ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
            site.client().submit(&api::JobSubmit {
                command,
                agent: Some("tight".into()),
                ..Default::default()
            })
        };
        let running = on(&text)?;
        site.client().wait_running(running)?;
        let reserve = small.path().join("agent/reserve");
        wait_until("the agent's ballast", || Ok(reserve.exists()))?;
        let ballast = small.fill()?;
        wait_until("the agent to give up its ballast", || Ok(!reserve.exists()))?;
        let refused = on("exit 8")?;
        let why = wait_for("the refusal", || {
            let why = site.client().why(refused)?;
            Ok(why.contains("disk").then_some(why))
        })?;
        assert!(why.contains("disk full") || why.contains("disk is full"), "{why}");
        std::fs::write(&go, "")?;
        let job = site.client().wait(running)?;
        assert!(End::Code(7).fits(&job), "{job:#?}");
        assert!(!site.client().job(refused)?.status.0.is_final());
        std::fs::remove_file(ballast)?;
        wait_until("the agent's ballast to be there again", || Ok(reserve.exists()))?;
        let job = site.client().wait(refused)?;
        assert!(End::Code(8).fits(&job), "{job:#?}");
        assert!(job.runs.iter().rev().skip(1).all(|run| run.status.0 == Status::Canceled), "{job:#?}");
        wait_until("it to take runs again", || Ok(site.client().agent("tight")?.refusing.is_none()))?;
        agent.stop()?;
        drop(small);
        Ok(())
    });
}

#[test]
fn a_run_that_was_accepted_and_finds_no_room_for_its_script_is_placed_again_when_there_is_room() {
    on_site(|site| {
        let Some(small) = small(&site.path().join("small"))? else { return Ok(()) };
        let mut agent = site.prepare_agent("tight", Dialling::In)?;
        agent.set_data_root(&small.path().join("agent"));
        agent.configure("[retention]\nballast = \"0\"\n");
        site.introduce(&agent)?;
        agent.start()?;
        site.wait_connected("tight")?;
        // Enough for what is accepted, which holds the script, and not for the script beside it.
        let ballast = small.fill_but(3 << 20)?;
        wait_until("it to take runs", || Ok(site.client().agent("tight")?.refusing.is_none()))?;
        let script = format!("#!/bin/sh\n# {}\nexit 7\n", "x".repeat(29 << 16));
        let job = api::JobSubmit { script: Some(script), agent: Some("tight".into()), ..Default::default() };
        let id = site.client().submit(&job)?;
        let reason = wait_for("it to find no room", || {
            let reasons = site.client().job(id)?.runs.into_iter().filter_map(|run| run.reason);
            Ok(reasons.into_iter().find(|reason| reason.contains("had no room: cannot write")))
        })?;
        assert!(reason.contains("/script: No space left on device"), "{reason}");
        std::fs::remove_file(ballast)?;
        let job = site.client().wait(id)?;
        assert!(End::Code(7).fits(&job), "{job:#?}");
        agent.stop()?;
        drop(small);
        Ok(())
    });
}

#[test]
fn a_file_for_which_there_was_no_room_is_kept_when_there_is_and_others_do_not_suffer_meanwhile() {
    on_site(|site| {
        let Some(small) = small(&site.path().join("small"))? else { return Ok(()) };
        let mut agent = site.prepare_agent("tight", Dialling::In)?;
        agent.set_data_root(&small.path().join("agent"));
        agent.configure("[retention]\nballast = \"0\"\n");
        site.introduce(&agent)?;
        agent.start()?;
        site.wait_connected("tight")?;
        let go = site.path().join("go");
        let text = format!(
            "head -c 3000000 /dev/zero > big; echo x > small; echo ready; while [ ! -e {} ]; do sleep 0.02; done",
            go.display()
        );
        let id = site.client().submit(&api::JobSubmit {
            capture: vec!["big".into(), "small".into(), "none".into()],
            agent: Some("tight".into()),
            ..crate::outcomes::shell(&text)
        })?;
        crate::outcomes::wait_for_line(site, id, "ready")?;
        let ballast = small.fill_but(4 << 20)?;
        std::fs::write(&go, "")?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed, "the outcome does not wait");
        wait_until("it to be tried again", || {
            Ok(agent.trace().contains("are not kept yet, trying again: no room: it has 3000000 bytes"))
        })?;
        let files = |site: &tests::Site| {
            let list = site.client().call("GET", &format!("/api/v1/jobs/{id}/files"), None)?;
            list.json::<api::JobFiles>()
        };
        assert_eq!(files(site)?.items.len(), 0);
        let free = os::disk::file_system(small.path())?.free_bytes;
        assert!(free >= 2 << 20, "{free} bytes are left to others");
        std::fs::remove_file(ballast)?;
        wait_until("both files to be kept", || Ok(files(site)?.items.len() == 2))?;
        let notes = |site: &tests::Site| {
            let proof = site.client().proof(id)?;
            let views = proof.runs.into_iter().flat_map(|run| run.steps).filter_map(|step| step.server);
            anyhow::Ok(views.filter(|view| view.what.contains("no file to keep")).count())
        };
        wait_until("the note of the missing file", || Ok(notes(site)? == 1))?;
        agent.stop()?;
        drop(small);
        Ok(())
    });
}

#[test]
fn a_server_with_a_full_disk_loses_no_outcome_and_goes_on_when_there_is_room() {
    let mounted = std::cell::RefCell::new(None);
    on_prepared_site(
        |path| {
            *mounted.borrow_mut() = small(&path.join("server"))?;
            Ok(())
        },
        |site| {
            let Some(small) = mounted.borrow_mut().take() else { return Ok(()) };
            site.add_agent("host1", Dialling::In)?;
            let ids = site.client().submit_batch(&vec![site.gated()?; 20])?;
            site.client().wait_running(ids[0])?;
            let ballast = small.fill()?;
            // As long as there is room in the database submissions are taken, and none that was taken may be lost; then there is no answer.
            let mut taken = Vec::new();
            let hasty = site.client().with_patience(Duration::from_secs(3));
            let refused = wait_for("a submission that is not taken", || {
                let body =
                    serde_json::json!({"command": ["/bin/sh", "-c", "exit 8"], "name": "x".repeat(200)});
                let answer = hasty.try_call("POST", "/api/v1/jobs", Some(&body));
                match answer {
                    Ok(answer) if answer.status == 201 => {
                        taken.push(answer.json::<api::Job>()?.id);
                        Ok(None)
                    }
                    Ok(answer) => {
                        Ok(Some(format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body))))
                    }
                    Err(e) => Ok(Some(format!("{e:#}"))),
                }
            })?;
            eprintln!("not taken: {refused}");
            let why = wait_for("the reason to be said", || {
                let answer = site.client().try_call("GET", "/readyz", None)?;
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                Ok((answer.status == 503 && text.contains("no new jobs are taken")).then_some(text))
            })?;
            assert!(why.contains("free_bytes_min"), "{why}");
            site.open_gate()?;
            let ledger = site.ledger();
            wait_until("the jobs to end", || {
                Ok(ids.iter().all(|id| ledger.of(*id).is_ok_and(|e| e.iter().any(|e| e.end.is_some()))))
            })?;
            std::fs::remove_file(ballast)?;
            if site.server.ended()?.is_some() {
                site.server.restart()?;
            }
            for id in ids {
                let job = site.client().wait(id)?;
                assert!(End::Code(7).fits(&job), "{job:#?}");
                assert_eq!(ledger.of(id)?.len(), 1);
            }
            for id in taken {
                let job = site.client().wait(id)?;
                assert!(End::Code(8).fits(&job), "{job:#?}");
            }
            wait_until("new jobs to be taken again", || {
                Ok(site.client().try_call("GET", "/readyz", None).is_ok_and(|answer| answer.status == 200))
            })?;
            let next = site.client().command(&["/bin/true"])?;
            assert_eq!(site.client().wait(next)?.status.0, Status::Completed);
            site.server.stop()?;
            drop(small);
            Ok(())
        },
    );
}
