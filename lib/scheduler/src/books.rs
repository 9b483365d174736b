//! The records of jobs and runs: whoever changes one takes it from here, so that it is written with the next batch.

use crate::engine::{Engine, Job, QueueIx, Run, Write};
use crate::input::Action;
use crate::{JobRecord, RunRecord};
use job::{JobId, RunId, Status};
use std::sync::Arc;

impl Engine {
    /// The record of a job, to be changed: it will be written.
    pub(crate) fn job_mut(&mut self, id: JobId) -> &mut JobRecord {
        match self.jobs.get_mut(&id) {
            Some(job) => {
                if job.write == Write::Clean {
                    job.write = Write::Update;
                    self.dirty_jobs.push(id);
                }
                &mut job.record
            }
            None => unreachable!("job {id} is referred to and not there"),
        }
    }

    /// The record of a run, to be changed: it will be written.
    pub(crate) fn run_mut(&mut self, id: RunId) -> &mut RunRecord {
        match self.runs.get_mut(&id) {
            Some(run) => {
                if run.write == Write::Clean {
                    run.write = Write::Update;
                    self.dirty_runs.push(id);
                }
                &mut run.record
            }
            None => unreachable!("run {id} is referred to and not there"),
        }
    }

    pub(crate) fn insert_job(&mut self, record: JobRecord, queue: QueueIx) {
        let id = record.id;
        self.counts.add(record.status);
        self.dirty_jobs.push(id);
        if let Some(key) = &record.spec.idempotency_key {
            self.keys.insert(key.clone(), (id, Arc::clone(&record.spec)));
        }
        self.jobs.insert(id, Job::new(record, queue, Write::Insert, None));
        self.queue_mut(queue).waiting += 1;
    }

    pub(crate) fn insert_run(&mut self, record: RunRecord) {
        let id = record.id;
        self.dirty_runs.push(id);
        self.runs.insert(id, Run { record, write: Write::Insert });
    }

    /// Moves a job on.
    pub(crate) fn set_job_status(&mut self, id: JobId, next: Status) {
        let from = self.jobs[&id].record.status;
        if from == next || !self.may_go(id, next) {
            return;
        }
        self.counts.sub(from);
        self.counts.add(next);
        self.job_mut(id).status = next;
        if next.is_final() {
            self.passing.jobs.push(id);
        }
    }

    /// Whether a job may go there, or is there. If not, that is our defect: a debug build stops, a release build says so and leaves
    /// the job where it is.
    pub(crate) fn may_go(&mut self, id: JobId, next: Status) -> bool {
        let from = self.jobs[&id].record.status;
        let legal = from == next || from.may_become(next) || from.may_begin_again(next);
        debug_assert!(legal, "job {id} from {from} to {next}");
        if !legal {
            self.defect(format!("job {id} was to go from {from} to {next}; left as it was"));
        }
        legal
    }

    /// Moves a run on; `false` if it may not go there.
    pub(crate) fn set_run_status(&mut self, id: RunId, next: Status) -> bool {
        let from = self.run_mut(id).status;
        let legal = from.may_become(next);
        debug_assert!(legal, "run {id} from {from} to {next}");
        if !legal {
            self.defect(format!("run {id} was to go from {from} to {next}; left as it was"));
            return false;
        }
        self.run_mut(id).status = next;
        if next.is_final() {
            self.passing.runs.push(id);
        }
        true
    }

    fn defect(&mut self, text: String) {
        self.act(Action::Defect(text));
    }
}
