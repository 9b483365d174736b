//! Programs that are asked to stop, do.

use tests::{on_site, wait_until};

#[test]
fn a_stopped_agent_leaves_no_process_of_its_own_without_jobs() {
    on_site(|site| {
        let id = site.client().command(&["/bin/true"])?;
        site.client().wait(id)?;
        let network_processor = site.agent()?.network_processor()?.unwrap();
        assert!(site.agent()?.stop()?.success());
        assert!(!network_processor.lives());
        wait_until("nothing of the agent to be left", || Ok(site.agent()?.job_processors()?.is_empty()))?;
        site.wait_away("host1")?;
        site.agent()?.start()?;
        site.wait_connected("host1")
    });
}

#[test]
fn a_server_that_is_stopped_says_success_and_keeps_what_it_has() {
    on_site(|site| {
        let id = site.client().command(&["/bin/false"])?;
        let before = site.client().wait(id)?;
        assert!(site.server.stop()?.success());
        site.server.restart()?;
        assert_eq!(site.client().job(id)?, before);
        site.wait_connected("host1")
    });
}

#[test]
fn after_a_controlled_stop_the_database_file_alone_is_all_there_is() {
    on_site(|site| {
        let id = site.client().command(&["/bin/false"])?;
        let before = site.client().wait(id)?;
        assert!(site.server.stop()?.success());
        for beside in ["server.db-wal", "server.db-shm"] {
            let _ = std::fs::remove_file(site.server.data_root().join(beside)); // as one who copies the one file
        }
        site.server.restart()?;
        assert_eq!(site.client().job(id)?, before);
        Ok(())
    });
}

#[test]
fn a_server_on_a_restored_backup_commands_nobody_until_a_person_says_so() {
    on_site(|site| {
        site.client().wait(site.client().command(&["/bin/true"])?)?;
        let database = site.server.data_root().join("server.db");
        assert!(site.server.stop()?.success());
        let backup = std::fs::read(&database)?;
        site.server.restart()?; // the next epoch, which the agent obeys
        site.wait_connected("host1")?;
        let after_backup = site.client().command(&["/bin/false"])?;
        site.client().wait(after_backup)?;
        assert!(site.server.stop()?.success());
        std::fs::write(&database, backup)?;

        site.server.spawn(&[])?; // it will not be ready
        wait_until("the server to say that the agent obeys another one", || {
            Ok(site.server.trace().contains("set epoch_min = "))
        })?;
        let trace = site.server.trace();
        let (_, named) = trace.rsplit_once("set epoch_min = ").unwrap();
        let named: String = named.chars().take_while(char::is_ascii_digit).collect();
        assert!(site.server.stop()?.success());
        site.server.restart_with(&[("LASTWORD_NODE__EPOCH_MIN".to_owned(), named)])?;
        site.wait_connected("host1")?;
        let job = site.client().wait(site.client().command(&["/bin/sh", "-c", "exit 7"])?)?;
        assert_eq!(job.exit_code, Some(7));
        Ok(())
    });
}
