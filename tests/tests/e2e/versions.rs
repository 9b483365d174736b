//! Programs of this version and of the one before, together: agents are upgraded at another time than servers.

use crate::outcomes::{shell, wait_for_line};
use api::{JobSubmit, Status};
use tests::{Dialling, Site, on_empty_site, wait_until};

fn older() -> [(String, String); 1] {
    [("LASTWORD_PROTOCOL_MAX".to_owned(), "1".to_owned())]
}

/// Jobs end, are killed and followed as ever.
fn all_is_as_ever(site: &mut Site) -> anyhow::Result<()> {
    assert_eq!(site.client().agent("host1")?.protocol, Some(1));
    let id = site.client().submit(&shell("seq 1 100000; echo oops >&2; exit 7"))?;
    let ended = site.client().wait(id)?;
    assert_eq!((ended.status.0, ended.exit_code), (Status::Error, Some(7)));
    let text = String::from_utf8(site.client().whole_output(id, "stdout")?)?;
    assert!(text.lines().eq((1..=100_000).map(|n| n.to_string())), "{} bytes", text.len());
    assert_eq!(site.client().whole_output(id, "stderr")?, b"oops\n");
    assert!(site.client().proof(id)?.runs[0].agrees == Some(true));

    let id = site.client().script("echo first; exec sleep 1000")?;
    wait_for_line(site, id, "first")?;
    let refused = site.lastword(&["job", "suspend", &id.to_string()])?.output()?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("agent \"host1\" speaks protocol 1, suspend needs 2"), "{why}");
    let follower = site.lastword(&["job", "logs", "-f", &id.to_string()])?;
    let follower = std::thread::spawn(move || { follower }.output());
    site.client().kill(id, None)?;
    assert_eq!(site.client().wait(id)?.status.0, Status::Killed);
    let followed = follower.join().map_err(|_| anyhow::anyhow!("the follower's thread died"))??;
    assert_eq!((followed.status.code(), &followed.stdout[..]), (Some(0), &b"first\n"[..]));
    Ok(())
}

#[test]
fn a_server_works_with_an_agent_of_the_version_before() {
    on_empty_site(|site| {
        site.add_agent_with("host1", Dialling::In, &older())?;
        all_is_as_ever(site)
    });
}

#[test]
fn a_job_that_an_older_agent_would_not_honour_waits_until_it_is_upgraded() {
    on_empty_site(|site| {
        site.add_agent_with("host1", Dialling::In, &older())?;
        let umask = Some("027".to_owned());
        let id = site.client().submit(&JobSubmit { umask, ..shell("umask") })?;
        let plain = site.client().command(&["/bin/true"])?;
        assert_eq!(site.client().wait(plain)?.status.0, Status::Completed, "others go by");
        let why = site.client().why(id)?;
        assert!(why.contains("agent \"host1\" speaks protocol 1, and umask needs 2"), "{why}");
        site.agent()?.stop()?;
        site.agent()?.start()?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        assert_eq!(site.client().stdout(id)?, "0027\n");
        Ok(())
    });
}

#[test]
fn an_agent_works_with_a_server_of_the_version_before_and_with_a_new_one_when_it_is_upgraded() {
    on_empty_site(|site| {
        site.server.stop()?;
        site.server.restart_with(&older())?;
        site.add_agent("host1", Dialling::Out)?;
        all_is_as_ever(site)?;
        let id = site.client().script("echo first; exec sleep 1000")?;
        wait_for_line(site, id, "first")?;
        site.server.stop()?;
        site.server.restart()?;
        wait_until("the link to be of version 2", || Ok(site.client().agent("host1")?.protocol == Some(2)))?;
        wait_for_line(site, id, "first")?;
        site.client().kill(id, None)?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Killed);
        Ok(())
    });
}
