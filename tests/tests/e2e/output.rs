//! What a job wrote.

use crate::outcomes::{shell, wait_for_line};
use api::{JobSubmit, Status};
use std::fs::File;
use std::process::Stdio;
use tests::{on_site, wait_for, wait_until};

#[test]
fn output_is_read_by_offset_and_while_the_job_runs() {
    on_site(|site| {
        let go = site.path().join("go");
        let id = site.client().script(&format!(
            "echo one; echo oops >&2; while [ ! -e {} ]; do sleep 0.02; done; echo two",
            go.display()
        ))?;
        wait_for_line(site, id, "one")?;
        let piece = site.client().output(id, "stdout", 0)?;
        assert_eq!((piece.bytes.as_slice(), piece.complete), (&b"one\n"[..], false));
        std::fs::write(&go, "")?;
        site.client().wait(id)?;
        wait_until("the whole output", || Ok(site.client().output(id, "stdout", 4)?.complete))?;
        assert_eq!(site.client().output(id, "stdout", 4)?.bytes, b"two\n");
        assert_eq!(site.client().output(id, "stdout", 8)?.bytes, b"");
        assert_eq!(site.client().whole_output(id, "stderr")?, b"oops\n");
        Ok(())
    });
}

#[test]
fn twenty_megabytes_of_output_are_complete() {
    on_site(|site| {
        let id = site.client().submit(&shell("seq 1 2600000"))?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        let bytes = site.client().whole_output(id, "stdout")?;
        assert!(bytes.len() > 19_000_000, "{} bytes", bytes.len());
        let text = String::from_utf8(bytes)?;
        assert!(text.lines().enumerate().all(|(i, line)| line.parse() == Ok(i + 1)));
        assert_eq!(text.lines().count(), 2_600_000);
        Ok(())
    });
}

#[test]
fn who_follows_gets_every_line_once_whatever_is_killed_on_the_way_and_is_let_go_at_the_end() {
    on_site(|site| {
        let (go, heard) = (site.path().join("go"), site.path().join("heard"));
        let id = site.client().script(&format!(
            "n=0; while [ ! -e {} ]; do n=$((n+1)); echo line $n; sleep 0.01; done; echo end",
            go.display()
        ))?;
        site.client().wait_running(id)?;
        let mut follower = site.lastword(&["job", "logs", "--follow", &id.to_string()])?;
        let mut follower = follower.stdout(File::create(&heard)?).stderr(Stdio::null()).spawn()?;
        let lines = || std::fs::read_to_string(&heard).unwrap_or_default().lines().count();
        wait_until("the first lines", || Ok(lines() > 5))?;
        site.agent()?.kill_network_processor()?;
        let then = lines();
        wait_until("lines after the network-processor was killed", || Ok(lines() > then + 20))?;
        site.server.kill()?;
        site.server.restart()?;
        let then = lines();
        wait_until("lines after the server was killed", || Ok(lines() > then + 20))?;
        std::fs::write(&go, "")?;
        let ended = wait_for("the follower to end", || Ok(follower.try_wait()?))?;
        assert!(ended.success(), "{ended}");
        let text = std::fs::read_to_string(&heard)?;
        let count = text.lines().count();
        let expected = (1..count).map(|n| format!("line {n}")).chain(["end".to_owned()]);
        assert!(text.lines().eq(expected), "{text}");
        Ok(())
    });
}

#[test]
fn output_outlives_a_killed_network_processor() {
    on_site(|site| {
        let go = site.path().join("go");
        let text = format!("echo before; while [ ! -e {} ]; do sleep 0.02; done; echo after", go.display());
        let id = site.client().submit(&JobSubmit { name: Some("talks".into()), ..shell(&text) })?;
        wait_for_line(site, id, "before")?;
        let killed = site.agent()?.kill_network_processor()?;
        std::fs::write(&go, "")?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        assert_ne!(site.agent()?.network_processor()?.map(|np| np.pid), Some(killed.pid));
        assert_eq!(site.client().stdout(id)?, "before\nafter\n");
        Ok(())
    });
}
