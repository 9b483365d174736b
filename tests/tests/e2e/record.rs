//! Who did what, and what is told as it happens, from the command line.

use api::Event;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use tests::{Site, on_site, wait_until};

/// What `lastword watch` prints; killed at the end.
struct Watcher(Child, std::io::Lines<BufReader<std::process::ChildStdout>>);

impl Watcher {
    fn start(site: &Site, arguments: &[&str]) -> anyhow::Result<Watcher> {
        let words = [&["watch", "-o", "jsonl"], arguments].concat();
        let mut child = site.lastword(&words)?.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let out = child.stdout.take().ok_or_else(|| anyhow::anyhow!("no output"))?;
        Ok(Watcher(child, BufReader::new(out).lines()))
    }

    /// The events up to the first that is wanted.
    fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        for line in &mut self.1 {
            let event: Event = serde_json::from_str(&line?)?;
            let last = wanted(&event);
            events.push(event);
            if last {
                return Ok(events);
            }
        }
        anyhow::bail!("the watcher ended early: {events:#?}")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is(event: &Event, object: &str, status: &str) -> bool {
    event.kind == "job.status" && event.object == object && event.data["status"] == status
}

#[test]
fn a_watcher_misses_nothing_while_the_server_is_killed_and_comes_back() {
    on_site(|site| {
        let mut watcher = Watcher::start(site, &["--kind", "job", "--after", "0"])?;
        let first = site.client().submit(&site.gated()?)?;
        let object = format!("job/{first}");
        let before = watcher.until(|event| is(event, &object, "Running"))?;
        assert!(before.iter().any(|event| is(event, &object, "Dispatched")), "{before:#?}");
        site.server.kill()?;
        site.open_gate()?;
        site.server.restart()?;
        let second = site.client().command(&["/bin/true"])?;
        site.client().wait(second)?;
        let (mut seen, object_2) = (before, format!("job/{second}"));
        seen.extend(watcher.until(|event| is(event, &object_2, "Completed"))?);
        while !seen.iter().any(|event| is(event, &object, "Error")) {
            seen.extend(watcher.until(|event| is(event, &object, "Error"))?);
        }
        let mut numbers: Vec<u64> = seen.iter().map(|event| event.number).collect();
        let count = numbers.len();
        assert!(numbers.is_sorted(), "{numbers:?}");
        numbers.dedup();
        assert_eq!(numbers.len(), count, "something was told twice");
        Ok(())
    });
}

fn run(site: &Site, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = site.lastword(arguments)?.output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[test]
fn what_an_operator_does_is_on_record_and_a_revoked_token_does_nothing() {
    on_site(|site| {
        let file = site.path().join("op.token");
        let path = file.to_string_lossy().into_owned();
        let new =
            ["token", "new", "op", "--role", "operator", "--expires", "90d", "--out", &path, "-o", "name"];
        let (code, id) = run(site, &new)?;
        assert_eq!(code, Some(0));
        let hold = ["--token-file", &path, "queue", "hold", "default", "--reason", "Wartung für heute"];
        assert_eq!(run(site, &hold)?.0, Some(0));
        assert_eq!(run(site, &["--token-file", &path, "queue", "create", "q"])?.0, Some(77));
        let (_, text) = run(site, &["audit", "--who", "op", "-o", "jsonl"])?;
        let entries: Vec<api::Audit> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let seen: Vec<_> =
            entries.iter().map(|entry| (entry.action.as_str(), entry.result.as_str())).collect();
        assert_eq!(seen, [("queue.create", "refused"), ("queue.hold", "done")]);
        assert_eq!(entries[1].reason.as_deref(), Some("Wartung für heute"));
        assert!(entries[1].via.starts_with("lastword/"), "{}", entries[1].via);
        assert_eq!(run(site, &["token", "revoke", id.trim()])?.0, Some(0));
        assert_eq!(run(site, &["--token-file", &path, "job", "list"])?.0, Some(77));
        site.server.kill()?;
        site.server.restart()?;
        wait_until("the revoked token to be refused by the next server too", || {
            Ok(site.lastword(&["--token-file", &path, "job", "list"])?.output()?.status.code() == Some(77))
        })
    });
}
