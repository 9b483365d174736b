//! Agents come, go and are not what they say.

use api::Status;
use tests::{Dialling, End, on_site, wait_until};

#[test]
fn the_server_dials_an_agent_that_listens() {
    on_site(|site| {
        site.add_agent("host2", Dialling::Out)?;
        let id = site.client().submit(&api::JobSubmit {
            agent: Some("host2".into()),
            command: vec!["/bin/sh".into(), "-c".into(), "exit 21".into()],
            ..api::JobSubmit::default()
        })?;
        assert!(End::Code(21).fits(&site.client().wait(id)?));
        site.agents[1].kill_network_processor()?;
        site.wait_away("host2")?;
        site.wait_connected("host2")
    });
}

#[test]
fn a_wrong_secret_never_connects_and_says_so_on_both_sides() {
    on_site(|site| {
        for (name, dialling) in [("wrong-in", Dialling::In), ("wrong-out", Dialling::Out)] {
            let mut agent = site.prepare_agent(name, dialling)?;
            if dialling == Dialling::Out {
                agent.start()?; // only to know where it listens; the server knows nothing of it yet
                agent.stop()?;
            }
            site.introduce(&agent)?;
            agent.write_secret(&"77".repeat(32))?;
            agent.start()?;
            wait_until("both sides to complain", || {
                let theirs = agent.trace().lines().any(|line| line.contains("secret"));
                let ours =
                    site.server.trace().lines().any(|line| line.contains(name) && line.contains("secret"));
                Ok(theirs && ours)
            })?;
            assert_eq!(site.client().agent(name)?.software, None, "never had a session");
            agent.stop()?;
        }
        // Nobody else suffers.
        let id = site.client().command(&["/bin/true"])?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        Ok(())
    });
}

#[test]
fn a_second_agent_on_the_same_data_root_refuses_with_a_clear_text() {
    on_site(|site| {
        let pid = site.agent()?.monitor().unwrap().pid;
        let mut second = site.prepare_agent("second", Dialling::In)?;
        second.set_data_root(site.agent()?.root().path());
        let output = second.try_start()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success());
        assert!(said.contains("in use by platform-agent") && said.contains(&pid.to_string()), "{said}");
        let id = site.client().command(&["/bin/true"])?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        Ok(())
    });
}

#[test]
fn an_agent_with_running_jobs_is_removed_only_by_force() {
    on_site(|site| {
        let id = site.client().command(&["/bin/sleep", "1000"])?;
        site.client().wait_running(id)?;
        let remove =
            |query: &str| site.client().call("DELETE", &format!("/api/v1/agents/host1{query}"), None);
        assert_eq!(remove("")?.status, 409);
        assert!((200..300).contains(&remove("?force=true")?.status));
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.exit_code, job.signal), (Status::Unknown, None, None), "{job:#?}");
        assert!(job.reason.is_some());
        assert_eq!(site.client().try_call("GET", "/api/v1/agents/host1", None)?.status, 404);
        Ok(())
    });
}

#[test]
fn a_removed_agent_can_be_made_known_again() {
    on_site(|site| {
        let answer = site.client().call("DELETE", "/api/v1/agents/host1", None)?;
        assert!((200..300).contains(&answer.status), "{answer:?}");
        let agent = &site.agents[0];
        site.introduce(agent)?;
        site.wait_connected("host1")?;
        let id = site.client().command(&["/bin/true"])?;
        assert_eq!(site.client().wait(id)?.status.0, Status::Completed);
        Ok(())
    });
}
