//! What an operator does with an agent over the years: drain it, rotate its secret, change its configuration, restore it from a backup.

use anyhow::{Context, Result};
use api::Status;
use os::signal::Signal;
use std::process::Output;
use tests::{Dialling, End, Site, on_empty_site, on_site, wait_until};

fn lastword(site: &Site, arguments: &[&str]) -> Result<String> {
    let output: Output = site.lastword(arguments)?.output()?;
    anyhow::ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The agent's links are made anew.
fn reconnect(site: &mut Site) -> Result<()> {
    site.agent()?.kill_network_processor()?;
    site.wait_away("host1")?;
    site.wait_connected("host1")
}

fn agent_says(site: &Site, what: &str) -> Result<()> {
    wait_until(&format!("the agent to say {what:?}"), || Ok(site.agents[0].trace().contains(what)))
}

#[test]
fn a_drained_agent_finishes_what_it_has_and_gets_nothing_new_until_it_is_resumed() {
    on_site(|site| {
        let running = site.client().submit(&site.gated()?)?;
        site.client().wait_running(running)?;
        let said = lastword(site, &["agent", "drain", "host1", "--reason", "new kernel"])?;
        assert!(said.contains("draining") && said.contains("new kernel"), "{said}");
        let waiting = site.client().command(&["/bin/true"])?;
        let why = site.client().why(waiting)?;
        assert!(why.contains("drained by") && why.contains("new kernel"), "{why}");
        let mut wait = site.lastword(&["agent", "drain", "host1", "--wait"])?;
        let mut wait = wait.stdout(std::process::Stdio::null()).spawn()?;
        assert!(wait.try_wait()?.is_none(), "it still has a run");
        site.open_gate()?;
        assert!(wait.wait()?.success());
        assert!(End::Code(7).fits(&site.client().job(running)?), "what ran went on");
        // The server remembers it, and so does whoever looks.
        assert!(site.server.stop()?.success());
        site.server.restart()?;
        site.wait_connected("host1")?;
        assert!(lastword(site, &["agent", "list"])?.contains("connected, drained"));
        assert!(!site.client().job(waiting)?.status.0.is_final());
        lastword(site, &["agent", "resume", "host1"])?;
        assert_eq!(site.client().wait(waiting)?.status.0, Status::Completed);
        Ok(())
    });
}

#[test]
fn an_agent_that_was_stopped_is_not_shown_as_lost() {
    on_site(|site| {
        assert!(site.agent()?.stop()?.success());
        site.wait_away("host1")?;
        assert!(lastword(site, &["agent", "list"])?.contains("stopped"));
        site.agent()?.start()?;
        site.wait_connected("host1")?;
        site.agent()?.vanish()?;
        site.wait_away("host1")?;
        assert!(lastword(site, &["agent", "list"])?.contains("lost"));
        Ok(())
    });
}

#[test]
fn a_secret_is_rotated_under_load_without_cutting_a_link_or_losing_a_job() {
    on_site(|site| {
        let jobs: Vec<u64> = (0..20).map(|_| site.client().command(&["/bin/true"])).collect::<Result<_>>()?;
        let since = site.client().agent("host1")?.since;
        let new = site.path().join("new.secret");
        lastword(site, &["secret", "new", &new.to_string_lossy()])?;
        lastword(site, &["agent", "secret", "host1", "--file", &new.to_string_lossy()])?;
        let old = std::fs::read_to_string(site.agent()?.secret_file())?;
        std::fs::rename(&new, site.agent()?.secret_file())?;
        agent_says(site, "a secret file changed: 1 secrets are valid now")?;
        lastword(site, &["agent", "secret", "host1", "--retire-old"])?;
        assert_eq!(site.client().agent("host1")?.since, since, "no link was cut");
        for job in jobs {
            assert_eq!(site.client().wait(job)?.status.0, Status::Completed);
        }
        reconnect(site)?;
        // The old one is worth nothing any more, and that it is tried can be seen.
        site.agent()?.write_secret(old.trim())?;
        agent_says(site, "a secret file changed: 1 secrets are valid now")?;
        site.agent()?.kill_network_processor()?;
        site.wait_away("host1")?;
        wait_until("the failures to be counted", || {
            let figures = site.client().call("GET", "/metrics", None)?.body;
            let figures = String::from_utf8_lossy(&figures).into_owned();
            Ok(figures.contains("lastword_link_auth_failures_total{peer=\"host1\"}"))
        })?;
        assert!(site.server.trace().contains("secret"), "{}", site.server.trace());
        wait_until("whoever looks at the agent to see why it is away", || {
            Ok(lastword(site, &["agent", "show", "host1"])?.contains("wrong secret"))
        })?;
        assert!(lastword(site, &["agent", "list"])?.contains("tries fail"));
        let job = site.client().command(&["/bin/true"])?.to_string();
        let why = lastword(site, &["job", "why", &job])?;
        assert!(why.contains("not connected") && why.contains("failed: wrong secret"), "{why}");
        Ok(())
    });
}

#[test]
fn the_servers_list_of_addresses_is_changed_without_a_restart() {
    on_site(|site| {
        let config = site.path().join("server.toml");
        let before = std::fs::read_to_string(&config)?;
        let server = site.server.process().context("no server")?;
        std::fs::write(&config, before.replace("[agents]\n", "[agents]\nallow = [\"192.0.2.0/24\"]\n"))?;
        server.signal(Signal::HUP)?;
        wait_until("the server to have read it", || {
            Ok(site.server.trace().contains("allow is [\"192.0.2.0/24\"] now"))
        })?;
        assert!(site.client().agent("host1")?.connected, "links in use stay");
        site.agent()?.kill_network_processor()?;
        site.wait_away("host1")?;
        let refused = || site.server.trace().matches("not on the list of allowed addresses").count();
        wait_until("the refusal to be told", || Ok(refused() > 0))?;
        std::fs::write(&config, before)?;
        server.signal(Signal::HUP)?;
        site.wait_connected("host1")?;
        assert_eq!(refused(), 1, "told once a minute, however often it tries");
        Ok(())
    });
}

#[test]
fn an_agents_configuration_is_read_anew_and_every_key_says_whether_it_counts_now() {
    on_empty_site(|site| {
        site.add_agent("host1", Dialling::Out)?;
        let monitor = site.agent()?.monitor().context("no monitor")?;
        site.agent()?.configure(
            "allow = [\"192.0.2.7\"]\nlibexec = \"/nowhere\"\n[retention]\nsettled_runs_max = 5\n",
        );
        site.agent()?.write_config()?;
        monitor.signal(Signal::HUP)?;
        agent_says(site, "SIGHUP: allow is [\"192.0.2.7\"] now (it was [])")?;
        agent_says(site, "SIGHUP: retention.settled_runs_max is Some(5) now")?;
        agent_says(site, "SIGHUP: libexec stays None")?;
        assert!(site.client().agent("host1")?.connected, "links in use stay");
        site.server.stop()?;
        site.server.restart()?;
        agent_says(site, "not on the list of allowed addresses")?;
        site.agent()?.configure("unknown = 1\n");
        site.agent()?.write_config()?;
        monitor.signal(Signal::HUP)?;
        agent_says(site, "everything stays as it was")?;
        assert!(!site.client().agent("host1")?.connected);
        site.agent()?.configure("");
        site.agent()?.write_config()?;
        monitor.signal(Signal::HUP)?;
        site.wait_connected("host1")
    });
}

#[test]
fn a_data_root_that_was_restored_from_a_backup_is_recognised_and_both_sides_say_so() {
    on_site(|site| {
        let identity = site.agent()?.root().path().join("identity");
        let backup = std::fs::read(&identity)?;
        for _ in 0..2 {
            reconnect(site)?;
        }
        assert!(site.agent()?.stop()?.success());
        site.wait_away("host1")?;
        reconnect_from(site, &identity, &backup)?;
        let trouble = site.client().agent("host1")?.trouble.context("no trouble")?;
        assert!(trouble.contains("went back in time"), "{trouble}");
        agent_says(site, "the server says: the data root of agent")?;
        assert!(lastword(site, &["agent", "list"])?.contains("trouble"));
        lastword(site, &["agent", "resume", "host1"])?;
        assert_eq!(site.client().agent("host1")?.trouble, None);
        Ok(())
    });
}

fn reconnect_from(site: &mut Site, identity: &std::path::Path, backup: &[u8]) -> Result<()> {
    // Two starts back, and the next one counts one: an earlier start than the server knows.
    std::fs::write(identity, backup)?;
    site.agent()?.start()?;
    site.wait_connected("host1")
}
