//! The command line program as scripts use it.

use tests::{on_site, wait_until};

#[test]
fn a_waiting_submission_exits_as_the_job_does() {
    on_site(|site| {
        let run = |arguments: &[&str]| -> anyhow::Result<(Option<i32>, String)> {
            let words = [&["job", "submit"], arguments].concat();
            let output = site.lastword(&words)?.output()?;
            Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
        };
        assert_eq!(run(&["--wait", "--", "/bin/true"])?.0, Some(0));
        assert_eq!(run(&["--wait", "--", "/bin/sh", "-c", "exit 7"])?.0, Some(7));
        assert_eq!(run(&["--wait", "--", "/bin/sh", "-c", "kill -9 $$"])?.0, Some(137));
        assert_eq!(run(&["--wait", "--timeout", "200ms", "--", "/bin/sleep", "1000"])?.0, Some(124));
        assert_eq!(run(&["--wait", "--", "/no/such/program"])?.0, Some(255));
        let (code, text) = run(&["--follow", "--", "/bin/sh", "-c", "echo said; exit 3"])?;
        assert_eq!(code, Some(3));
        assert!(text.contains("said\n"), "{text}");
        let (code, text) = run(&["--", "/bin/true"])?;
        assert_eq!(code, Some(0));
        assert!(text.trim().parse::<u64>().is_ok(), "the number comes first: {text}");
        Ok(())
    });
}

#[test]
fn a_job_is_killed_from_the_command_line() {
    on_site(|site| {
        let id = site.client().command(&["/bin/sleep", "1000"])?;
        site.client().wait_running(id)?;
        let status = site.lastword(&["job", "kill", &id.to_string()])?.status()?;
        assert!(status.success());
        let waited = site.lastword(&["job", "wait", &id.to_string()])?.status()?;
        assert_eq!(waited.code(), Some(128 + 15));
        let shown = site.lastword(&["job", "show", &id.to_string(), "-o", "json"])?.output()?;
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout)?;
        assert_eq!((&shown["status"], &shown["signal"]), (&"Killed".into(), &15.into()), "{shown:#}");
        assert_eq!(shown["runs"][0]["witness"], "job-processor");
        Ok(())
    });
}

#[test]
fn what_does_not_exist_and_who_does_not_answer_have_codes_of_their_own() {
    on_site(|site| {
        assert_eq!(site.lastword(&["job", "show", "999999"])?.output()?.status.code(), Some(66));
        assert_eq!(site.lastword(&["job", "shoe"])?.output()?.status.code(), Some(64));
        let forged = site.path().join("forged.token");
        std::fs::write(&forged, "0123456789abcdef0123456789abcdef\n")?;
        std::fs::set_permissions(&forged, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let refused = site.lastword(&["job", "list"])?.env("LASTWORD_TOKEN_FILE", &forged).output()?;
        assert_eq!(refused.status.code(), Some(77));
        site.server.stop()?;
        wait_until("the client to give up", || {
            Ok(site.lastword(&["job", "list"])?.output()?.status.code() == Some(69))
        })
    });
}
