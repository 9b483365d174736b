//! Queues, their agents, and jobs that wait in them.

use crate::outcomes::{command, shell};
use api::{JobSubmit, Status};
use std::collections::BTreeSet;
use tests::{Dialling, End, Way, ledger_job, on_site, wait_until};

fn in_queue(queue: &str, job: JobSubmit) -> JobSubmit {
    JobSubmit { queue: Some(queue.into()), ..job }
}

#[test]
fn a_held_queue_gives_nothing_away_until_it_is_released() {
    on_site(|site| {
        site.client().create_queue("q", &["host1"])?;
        site.client().change_queue("q", "hold")?;
        let held = site.client().submit(&in_queue("q", command(&["/bin/true"])))?;
        let other = site.client().command(&["/bin/true"])?;
        site.client().wait(other)?;
        let job = site.client().job(held)?;
        assert!(!job.status.0.is_final() && job.runs.is_empty(), "{job:#?}");
        let why = site.client().why(held)?;
        assert!(why.contains("queue \"q\"") && why.contains("held"), "{why}");
        site.client().change_queue("q", "release")?;
        assert_eq!(site.client().wait(held)?.status.0, Status::Completed);
        Ok(())
    });
}

#[test]
fn a_held_job_runs_when_it_is_released() {
    on_site(|site| {
        let id = site.client().submit(&JobSubmit { held: true, ..shell("exit 4") })?;
        site.client().wait(site.client().command(&["/bin/true"])?)?;
        assert_eq!(site.client().job(id)?.status.0, Status::Held);
        site.client().change(id, "release")?;
        assert!(End::Code(4).fits(&site.client().wait(id)?));
        Ok(())
    });
}

#[test]
fn four_agents_of_either_kind_share_a_queue_and_a_detached_one_gets_nothing() {
    on_site(|site| {
        site.add_agent("host2", Dialling::Out)?;
        site.add_agent("host3", Dialling::In)?;
        site.add_agent("host4", Dialling::Out)?;
        let names = ["host1", "host2", "host3", "host4"];
        let queue = site.client().create_queue("wide", &names)?;
        assert_eq!(queue.agents, names);
        let jobs = vec![in_queue("wide", command(&["/bin/sleep", "0.3"])); 24];
        let ids = site.client().submit_batch(&jobs)?;
        site.client().wait_all()?;
        let used = agents_of(site, &ids)?;
        assert_eq!(used, names.map(str::to_owned).into(), "all four had some");
        site.client().attachment("wide", "detach", "host2")?;
        site.client().attachment("wide", "detach", "host3")?;
        let ids = site.client().submit_batch(&jobs)?;
        site.client().wait_all()?;
        assert_eq!(agents_of(site, &ids)?, ["host1", "host4"].map(str::to_owned).into());
        Ok(())
    });
}

#[test]
fn a_queue_without_an_agent_waits_until_one_is_attached() {
    on_site(|site| {
        site.client().create_queue("empty", &[])?;
        let id = site.client().submit(&in_queue("empty", shell("exit 6")))?;
        let why = site.client().why(id)?;
        assert!(why.contains("\"empty\"") && why.contains("attach"), "{why}");
        site.client().attachment("empty", "attach", "host1")?;
        assert!(End::Code(6).fits(&site.client().wait(id)?));
        Ok(())
    });
}

#[test]
fn a_job_that_is_killed_while_it_waits_never_runs() {
    on_site(|site| {
        let ledger = site.ledger();
        site.client().create_queue("q", &["host1"])?;
        site.client().change_queue("q", "hold")?;
        let job = ledger_job(ledger.path(), Way { sleep_ms: 0, end: End::Code(0) })?;
        let (killed, goes) = (in_queue("q", job.clone()), in_queue("q", job));
        let (killed, goes) = (site.client().submit(&killed)?, site.client().submit(&goes)?);
        site.client().kill(killed, None)?;
        let job = site.client().job(killed)?;
        assert_eq!((job.status.0, job.exit_code, job.runs.len()), (Status::Canceled, None, 0), "{job:#?}");
        site.client().change_queue("q", "release")?;
        site.client().wait(goes)?;
        assert!(ledger.of(killed)?.is_empty(), "it never ran");
        assert_eq!(ledger.of(goes)?.len(), 1);
        Ok(())
    });
}

#[test]
fn no_agent_has_more_runs_than_slots() {
    on_site(|site| {
        let set = serde_json::json!({"slots": 2});
        site.client().call("POST", "/api/v1/agents/host1/set", Some(&set))?.json::<api::Agent>()?;
        let ids = site.client().submit_batch(&vec![command(&["/bin/sleep", "1000"]); 5])?;
        wait_until("two to run", || Ok(running(site)? == 2))?;
        let agent = site.client().agent("host1")?;
        assert_eq!((agent.slots, agent.slots_used), (2, 2));
        site.client().kill(ids[0], Some(0))?;
        site.client().wait(ids[0])?;
        wait_until("the third to run", || Ok(site.client().job(ids[2])?.status.0 == Status::Running))?;
        assert_eq!(running(site)?, 2);
        Ok(())
    });
}

fn running(site: &tests::Site) -> anyhow::Result<usize> {
    Ok(site.client().list()?.iter().filter(|job| job.status.0 == Status::Running).count())
}

fn agents_of(site: &tests::Site, ids: &[u64]) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for id in ids {
        found.extend(site.client().job(*id)?.agent);
    }
    Ok(found)
}

/// The jobs that are with an agent.
fn with_agent(site: &tests::Site, name: &str, ids: &[u64]) -> anyhow::Result<Vec<u64>> {
    let mut found = Vec::new();
    for id in ids {
        let job = site.client().job(*id)?;
        if job.agent.as_deref() == Some(name) && job.status.0 == Status::Running {
            found.push(*id);
        }
    }
    Ok(found)
}

#[test]
fn when_one_of_four_process_servers_dies_the_others_take_the_rest_and_its_runs_are_resolved_when_it_is_back()
{
    on_site(|site| {
        site.add_agent("host2", Dialling::Out)?;
        site.add_agent("host3", Dialling::In)?;
        site.add_agent("host4", Dialling::Out)?;
        let names = ["host1", "host2", "host3", "host4"];
        for name in names {
            let set = serde_json::json!({"slots": 2});
            site.client().call("POST", &format!("/api/v1/agents/{name}/set"), Some(&set))?;
        }
        site.client().create_queue("wide", &names)?;
        let ids = site.client().submit_batch(&vec![in_queue("wide", site.gated()?); 40])?;
        wait_until("all slots to be taken", || Ok(running(site)? == 8))?;
        let lost = with_agent(site, "host2", &ids)?;
        assert_eq!(lost.len(), 2, "each has its share");
        site.agents[1].vanish()?;
        site.wait_away("host2")?;
        site.open_gate()?;
        let rest: Vec<u64> = ids.iter().copied().filter(|id| !lost.contains(id)).collect();
        for id in &rest {
            assert!(End::Code(7).fits(&site.client().wait(*id)?));
        }
        assert_eq!(agents_of(site, &rest)?, ["host1", "host3", "host4"].map(str::to_owned).into());
        let ledger = site.ledger();
        for id in &lost {
            wait_until("its job to end on its host", || Ok(ledger.of(*id)?.iter().any(|e| e.end.is_some())))?;
            assert_eq!(site.client().job(*id)?.status.0, Status::Running, "what nobody told is not invented");
            let why = site.client().why(*id)?;
            assert!(why.contains("agent \"host2\"") && why.contains("as far as is known"), "{why}");
        }
        site.agents[1].start()?;
        for id in &ids {
            let job = site.client().wait(*id)?;
            assert!(End::Code(7).fits(&job), "{job:#?}");
            assert_eq!((job.runs.len(), ledger.of(*id)?.len()), (1, 1), "each ran once: {job:#?}");
        }
        assert_eq!(agents_of(site, &lost)?, ["host2".to_owned()].into());
        Ok(())
    });
}
