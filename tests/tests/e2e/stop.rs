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
