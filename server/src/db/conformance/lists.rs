//! Every way to ask for a list, compared with what a plain look at each job finds.

use super::super::{Database, FAILED, JobFilter};
use super::job;
use job::{JobId, Status};
use scheduler::{Change, JobRecord};

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
