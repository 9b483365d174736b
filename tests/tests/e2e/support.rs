//! What an operator can hand to somebody far away, and what he can look at from where he is.

use anyhow::{Context, Result, ensure};
use api::JobSubmit;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tests::{Site, on_site, wait_until};

fn lastword(site: &Site, arguments: &[&str]) -> Result<String> {
    let output = site.lastword(arguments)?.output()?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Every file below a folder, with what is in it.
fn files(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            found.push((path.display().to_string(), text));
        }
    }
    Ok(found)
}

#[test]
fn a_support_bundle_of_a_server_that_traces_everything_holds_no_secret_of_its_jobs_agents_or_users() {
    on_site(|site| {
        // What is traced about requests and links, too.
        site.server.stop()?;
        site.server.restart_with(&[("LASTWORD_TRACE".into(), "trace".into())])?;
        site.wait_connected("host1")?;
        let token = lastword(site, &["token", "new", "ci", "--role", "operator"])?.trim().to_owned();
        let job = JobSubmit {
            command: ["/bin/sh", "-c", "echo hush-output; exit 3", "hush-argument"].map(str::to_owned).into(),
            env: [("PASSWORD".to_owned(), "hush-variable".to_owned())].into(),
            params: [("p".to_owned(), "hush-parameter".to_owned())].into(),
            ..JobSubmit::default()
        };
        let script = JobSubmit {
            command: Vec::new(),
            script: Some("#!/bin/sh\n: hush-script\n".into()),
            ..job.clone()
        };
        for job in [job, script] {
            site.client().wait(site.client().submit(&job)?)?;
        }
        let reason = format!("--reason={token} at https://anna:hush-word@wiki.example/");
        lastword(site, &["queue", "hold", "default", &reason])?;
        let archive = site.path().join("bundle.tar.gz");
        lastword(
            site,
            &["server", "support-bundle", "--out", &archive.display().to_string(), "--reason", "ticket 7"],
        )?;
        let folder = site.path().join("unpacked");
        std::fs::create_dir(&folder)?;
        ensure!(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder).status()?.success());
        let shared = std::fs::read_to_string(site.agent()?.secret_file())?.trim().to_owned();
        let hex: String = shared.bytes().map(|byte| format!("{byte:02x}")).collect();
        let admin = std::fs::read_to_string(site.server.token_file())?.trim().to_owned();
        let secrets = ["hush", "argon2", &shared, &hex, &token, &admin];
        let files = files(&folder)?;
        for (name, text) in &files {
            let found: Vec<_> = secrets.iter().filter(|secret| text.contains(**secret)).collect();
            ensure!(found.is_empty(), "{name} tells {found:?}");
        }
        let of =
            |name: &str| files.iter().find(|(path, _)| path.ends_with(name)).map(|(_, text)| text.as_str());
        let trace = of("trace/central-server.log").context("no trace")?;
        ensure!(
            trace.contains("DEBUG") && trace.contains("/api/v1/queues/{name}/hold"),
            "it traces everything"
        );
        ensure!(
            of("agents.jsonl").is_some_and(|text| text.contains("\"protocol\":2")),
            "{:?}",
            of("agents.jsonl")
        );
        ensure!(of("audit.jsonl").is_some_and(|text| text.contains("https://(left out)@wiki.example/")));
        ensure!(
            of("jobs.json")
                .is_some_and(|text| text.contains("\"Completed\": 1") && text.contains("\"Error\": 1"))
        );
        ensure!(of("INDEX.md").is_some_and(|text| text.contains("What is never in it")));
        let audit = lastword(site, &["audit", "--object", "server", "-o", "wide"])?;
        ensure!(audit.contains("server.support-bundle") && audit.contains("ticket 7"), "{audit}");
        Ok(())
    });
}

#[test]
fn what_an_agent_traces_is_read_through_the_server_and_followed_over_a_restart_of_its_network_processor() {
    on_site(|site| {
        let newest = lastword(site, &["agent", "logs", "host1"])?;
        let programs = ["network-processor", "platform-agent"];
        for program in programs {
            ensure!(newest.contains("trace begins pid=") && newest.contains(program), "{newest}");
        }
        let times: Vec<&str> = newest.lines().filter_map(|line| line.split(' ').next()).collect();
        ensure!(times.is_sorted(), "{newest}");
        let one =
            lastword(site, &["agent", "logs", "host1", "--program", "platform-agent", "--tail", "200"])?;
        ensure!(one.len() <= 200 && !one.contains("network_processor::"), "{one}");
        let mut command =
            site.lastword(&["agent", "logs", "host1", "--program", "network-processor", "--follow"])?;
        let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(follower.stdout.take().context("no standard output")?).lines();
        let (said, heard) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            lines.map_while(|line| line.ok()).try_for_each(|line| said.send(line))
        });
        let mut all: Vec<String> = Vec::new();
        let mut begins = |wanted: usize| {
            wait_until(&format!("{wanted} beginnings of its trace"), || {
                all.extend(heard.try_iter());
                Ok(all.iter().filter(|line| line.contains("trace begins")).count() == wanted)
            })
        };
        begins(1)?;
        site.agent()?.kill_network_processor()?;
        begins(2)?;
        follower.kill()?;
        follower.wait()?;
        let _ = reader.join(); // whatever was said last
        all.extend(heard.try_iter());
        let mut once = all.clone();
        once.dedup();
        ensure!(once == all, "nothing is printed twice: {all:#?}");
        let unknown = site.lastword(&["agent", "logs", "host9"])?.output()?;
        ensure!(unknown.status.code() == Some(66), "{unknown:?}");
        Ok(())
    });
}

#[test]
fn a_backup_and_a_check_are_operations_that_can_be_listed_waited_for_and_found_in_the_audit() {
    on_site(|site| {
        let made = lastword(site, &["server", "backup", "-o", "json", "--reason", "before the move"])?;
        let made: serde_json::Value = serde_json::from_str(&made)?;
        ensure!(made["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{made}");
        ensure!(lastword(site, &["server", "check"])?.contains("0 contradictions"));
        let list = lastword(site, &["server", "operations", "-o", "name"])?;
        let ids: Vec<&str> = list.lines().collect();
        ensure!(ids.len() == 2, "{list}");
        ensure!(
            lastword(site, &["server", "wait", ids[1], "-o", "name"])?.trim() == made["file"],
            "the backup's file"
        );
        let audit = lastword(site, &["audit", "--object", "server", "--columns", "action,reason,detail"])?;
        ensure!(
            audit.matches("server.backup").count() == 2 && audit.matches("server.check").count() == 2,
            "{audit}"
        );
        ensure!(audit.matches("before the move").count() == 2, "{audit}");
        let missing = site.lastword(&["server", "wait", "0-0"])?.output()?;
        ensure!(missing.status.code() == Some(66), "{missing:?}");
        let again =
            site.lastword(&["server", "backup", made["file"].as_str().unwrap_or_default()])?.output()?;
        ensure!(again.status.code() == Some(65), "{again:?}");
        ensure!(String::from_utf8_lossy(&again.stderr).contains("replaces nothing"), "{again:?}");
        Ok(())
    });
}
