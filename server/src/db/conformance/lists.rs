//! Every way to ask for a list, compared with what a plain look at each job finds.

use super::super::{Database, Expired, FAILED, JobFilter};
use super::{agent, job, run};
use job::{JobId, Status};
use scheduler::{Change, FactRecord, JobRecord, RunRecord};

const STATUSES: [Status; 4] = [Status::Completed, Status::Error, Status::Queued, Status::Killed];
const EXIT_CODES: [Option<u8>; 4] = [Some(0), Some(7), None, None];
/// The numbers of the jobs that are listed; those below were left by other parts of the suite.
const FIRST: u64 = 100;
const LAST: u64 = 199;

fn record(id: u64) -> JobRecord {
    let status = STATUSES[usize::try_from(id % 4).unwrap()];
    let name = match id % 5 {
        0 => "five",
        1 => "fivefold",
        _ => "other",
    };
    JobRecord {
        agent: id.is_multiple_of(2).then(|| "even".to_owned()),
        submitted_at_ms: i64::try_from(id).unwrap() * 1_000_000,
        exit_code: EXIT_CODES[usize::try_from(id % 4).unwrap()],
        ..job(id, name, status)
    }
}

fn fits(id: u64, filter: &JobFilter) -> bool {
    let job = record(id);
    (filter.statuses.is_empty() || filter.statuses.contains(&job.status))
        && (!filter.failed || FAILED.contains(&job.status))
        && filter.queue.as_ref().is_none_or(|queue| job.spec.queue == *queue)
        && filter.agent.as_ref().is_none_or(|agent| job.agent.as_ref() == Some(agent))
        && filter.name.as_ref().is_none_or(|name| job.spec.name == *name)
        && filter.name_prefix.as_ref().is_none_or(|prefix| job.spec.name.starts_with(prefix))
        && filter.since_ms.is_none_or(|since| job.submitted_at_ms >= since)
        && filter.until_ms.is_none_or(|until| job.submitted_at_ms < until)
        && filter.exit_code.is_none_or(|code| job.exit_code == Some(code))
}

/// Every combination of every way to ask.
fn filters() -> Vec<JobFilter> {
    let own = |text: &str| Some(text.to_owned());
    let mut filters = vec![JobFilter::default()];
    let mut cross = |ways: &[&dyn Fn(&mut JobFilter)]| {
        filters = filters
            .iter()
            .flat_map(|filter| {
                let with = |way: &&dyn Fn(&mut JobFilter)| {
                    let mut filter = filter.clone();
                    way(&mut filter);
                    filter
                };
                std::iter::once(filter.clone()).chain(ways.iter().map(with)).collect::<Vec<_>>()
            })
            .collect();
    };
    cross(&[&|f| f.statuses = vec![Status::Error], &|f| {
        f.statuses = vec![Status::Completed, Status::Killed]
    }]);
    cross(&[&|f| f.queue = own("default"), &|f| f.queue = own("none")]);
    cross(&[&|f| f.agent = own("even")]);
    cross(&[&|f| f.name = own("five"), &|f| f.name_prefix = own("five")]);
    cross(&[&|f| f.since_ms = Some(150_000_000), &|f| f.until_ms = Some(150_000_001)]);
    cross(&[&|f| f.failed = true]);
    cross(&[&|f| f.exit_code = Some(7), &|f| f.exit_code = Some(0)]);
    filters
}

pub(super) fn lists_are_filtered_and_paged<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    db.commit(&(FIRST..=LAST).map(|id| Change::JobInserted(record(id))).collect::<Vec<_>>()).unwrap();
    let list = |filter: &JobFilter, cursor: Option<u64>, limit| -> Vec<u64> {
        db.jobs(filter, cursor.map(JobId), limit).unwrap().into_iter().map(|job| job.id.0).collect()
    };
    let all = JobFilter::default();
    assert_eq!(list(&all, None, 3), [199, 198, 197]);
    assert_eq!(list(&all, Some(197), 2), [196, 195]);
    assert_eq!(list(&all, None, 1_000).len(), 102);
    let filters = filters();
    assert_eq!(filters.len(), 3 * 3 * 2 * 3 * 3 * 2 * 3);
    for filter in filters {
        let expected: Vec<u64> = (FIRST..=LAST).rev().filter(|id| fits(*id, &filter)).collect();
        let mut pages = Vec::new();
        let mut cursor = Some(LAST + 1);
        while let Some(below) = cursor {
            let page = list(&filter, Some(below), 7);
            cursor = page.last().copied().filter(|_| page.len() == 7);
            pages.extend(page);
        }
        pages.retain(|id| *id >= FIRST);
        assert_eq!(pages, expected, "{filter:?}");
    }
}

/// After everything else in the suite.
const T: i64 = 1_000_000_000;

/// Some jobs that are over, each with a run and a message, and one that runs.
pub(super) fn what_is_over_for_long_is_deleted_with_all_its_records<D: Database>(open: &impl Fn() -> D) {
    let db = open();
    let last = db.load().unwrap().last_job;
    let id = |n: u64| JobId(last + n);
    let over = |n: u64, status, agent: &str| {
        let run = RunRecord { job: id(n), agent: agent.into(), ..run(9_000 + u128::from(n), 0, status) };
        let job = JobRecord {
            run: Some(run.id),
            submitted_at_ms: T,
            ended_at_ms: Some(T + 2_000),
            ..job(id(n).0, "old", status)
        };
        let fact = FactRecord {
            run: run.id,
            seq: 1,
            received_at_ms: T + 3_000,
            bytes: vec![1],
            commit: 0,
            committed_at_ms: None,
        };
        [Change::JobInserted(job), Change::RunInserted(run), Change::FactInserted(fact)]
    };
    db.commit(&[
        Change::AgentInserted(agent("heard"), vec![1]),
        Change::AgentInserted(agent("away"), vec![1]),
    ])
    .unwrap();
    let agents = ["heard", "away", "removed", "heard", "heard"];
    let statuses = [Status::Completed, Status::Unknown, Status::Abandoned, Status::Running, Status::Error];
    for (n, (name, status)) in (1..).zip(agents.into_iter().zip(statuses)) {
        db.commit(&over(n, status, name)).unwrap();
    }
    let find = |ended_before_ms, told_before_ms, limit| {
        let agents = vec!["heard".to_owned()];
        let mut found = db.expired(&Expired { ended_before_ms, told_before_ms, agents, limit }).unwrap();
        found.retain(|job| job.0 > last);
        found
    };
    let all = 10_000;
    assert_eq!(find(i64::MAX, T + 4_000, all), [id(1), id(3), id(5)], "over, and nobody has more to tell");
    assert_eq!(find(T + 2_000, T + 4_000, all), [], "not long enough");
    assert_eq!(find(i64::MAX, T + 3_000, all), [id(3)], "told a moment ago");
    assert_eq!(find(T + 2_001, T + 4_000, all), [id(3)], "by the server's clock not long enough");
    assert!(
        db.expired(&Expired { limit: 1, ended_before_ms: i64::MAX, ..Expired::default() }).unwrap().len()
            <= 1
    );
    let before = db.counts().unwrap();
    db.commit(&[Change::JobDeleted(id(1)), Change::JobDeleted(id(5))]).unwrap();
    drop(db);
    let db = open();
    for n in [1, 5] {
        assert_eq!(db.job(id(n)).unwrap(), None);
        assert_eq!(db.runs(id(n)).unwrap(), []);
        assert_eq!(db.facts(run(9_000 + u128::from(n), 0, Status::Error).id).unwrap(), []);
    }
    assert_eq!(db.facts(run(9_003, 0, Status::Error).id).unwrap().len(), 1, "others keep theirs");
    assert_eq!(before.of(Status::Error), db.counts().unwrap().of(Status::Error) + 1);
    assert_eq!(db.load().unwrap().last_job, last + 5, "its number is not given again");
    let rest: Vec<Change> = (2..=4).map(|n| Change::JobDeleted(id(n))).collect();
    db.commit(&rest).unwrap();
    db.commit(&[Change::AgentDeleted("heard".into()), Change::AgentDeleted("away".into())]).unwrap();
}
