//! Somebody is away, and nothing is lost.

use crate::outcomes::wait_for_line;
use api::Status;
use tests::{Dialling, End, Way, ledger_job, on_site, wait_until};

const SEVEN: Way = Way { sleep_ms: 0, end: End::Code(7) };

#[test]
fn jobs_wait_while_the_agent_is_away_and_then_run() {
    on_site(|site| {
        let ledger = site.ledger();
        site.agent()?.vanish()?;
        site.wait_away("host1")?;
        let ids = site.client().submit_batch(&vec![ledger_job(ledger.path(), SEVEN)?; 10])?;
        let why = site.client().why(ids[0])?;
        assert!(why.contains("host1") && why.contains("not connected"), "{why}");
        site.agent()?.start()?;
        for id in ids {
            assert!(SEVEN.end.fits(&site.client().wait(id)?));
            assert_eq!(ledger.of(id)?.len(), 1);
        }
        Ok(())
    });
}

#[test]
fn an_outcome_that_happens_while_the_agent_is_away_arrives_afterwards() {
    on_site(|site| {
        let ledger = site.ledger();
        let id = site.client().submit(&ledger_job(ledger.path(), Way { sleep_ms: 300, ..SEVEN })?)?;
        site.client().wait_running(id)?;
        site.agent()?.vanish()?;
        site.wait_away("host1")?;
        wait_until("the job to end", || Ok(ledger.of(id)?.iter().any(|e| e.end.is_some())))?;
        assert_eq!(site.client().job(id)?.status.0, Status::Running, "what nobody told is not invented");
        site.agent()?.start()?;
        let job = site.client().wait(id)?;
        assert!(SEVEN.end.fits(&job), "{job:#?}");
        assert_eq!(ledger.of(id)?.len(), 1);
        Ok(())
    });
}

#[test]
fn a_kill_while_the_agent_is_away_is_carried_out_when_it_is_back() {
    on_site(|site| {
        let id = site.client().command(&["/bin/sleep", "1000"])?;
        site.client().wait_running(id)?;
        site.agent()?.vanish()?;
        site.wait_away("host1")?;
        site.client().kill(id, Some(100))?;
        site.server.kill()?;
        site.server.restart()?;
        assert_eq!(site.client().job(id)?.status.0, Status::Running, "the wish alone ends nothing");
        site.agent()?.start()?;
        let job = site.client().wait(id)?;
        assert_eq!((job.status.0, job.signal), (Status::Killed, Some(15)), "{job:#?}");
        Ok(())
    });
}

#[test]
fn jobs_run_on_while_the_server_restarts_and_their_outcomes_arrive() {
    on_site(|site| {
        site.add_agent("host2", Dialling::Out)?;
        let ledger = site.ledger();
        let way = Way { sleep_ms: 400, ..SEVEN };
        let jobs = vec![ledger_job(ledger.path(), way)?; 20];
        let ids = site.client().submit_batch(&jobs)?;
        site.client().wait_running(ids[0])?;
        site.server.kill()?;
        wait_until("the jobs to end without a server", || {
            Ok(ledger.read()?.values().flatten().all(|e| e.end.is_some()))
        })?;
        site.server.restart()?;
        for id in &ids {
            assert!(way.end.fits(&site.client().wait(*id)?));
            assert_eq!(ledger.of(*id)?.len(), 1);
        }
        assert!(site.server.stop()?.success(), "a controlled stop");
        site.server.restart()?;
        assert_eq!(site.client().list()?.len(), ids.len());
        Ok(())
    });
}

#[test]
fn a_controlled_stop_of_the_agent_leaves_its_jobs_running() {
    on_site(|site| {
        let go = site.path().join("go");
        let id = site
            .client()
            .script(&format!("echo up; while [ ! -e {} ]; do sleep 0.02; done; exit 7", go.display()))?;
        wait_for_line(site, id, "up")?;
        let run_id = site.client().job(id)?.runs[0].run_id.clone();
        assert!(site.agent()?.stop()?.success());
        wait_until("the server to know that it was stopped", || Ok(site.client().agent("host1")?.stopped))?;
        let job_processor = site.agent()?.job_processor(&run_id)?.unwrap();
        std::fs::write(&go, "")?;
        wait_until("the job-processor to be done", || Ok(!job_processor.lives()))?;
        assert_eq!(site.client().job(id)?.status.0, Status::Running);
        site.agent()?.start()?;
        let job = site.client().wait(id)?;
        assert!(End::Code(7).fits(&job), "{job:#?}");
        assert_eq!(job.runs[0].witness.as_deref(), Some("job-processor"));
        Ok(())
    });
}

#[test]
fn a_killed_network_processor_comes_back_and_delivers() {
    on_site(|site| {
        let ledger = site.ledger();
        let way = Way { sleep_ms: 300, ..SEVEN };
        let ids = site.client().submit_batch(&vec![ledger_job(ledger.path(), way)?; 10])?;
        site.client().wait_running(ids[0])?;
        for _ in 0..3 {
            site.agent()?.kill_network_processor()?;
        }
        for id in ids {
            assert!(way.end.fits(&site.client().wait(id)?));
            assert_eq!(ledger.of(id)?.len(), 1);
        }
        Ok(())
    });
}
