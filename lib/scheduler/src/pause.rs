//! Jobs that stand still on request, and go on. The wish is durable and is told to the agent until its log says that it was obeyed.
//!
//! A suspended job keeps its slot: it may go on at any moment, and its memory is still taken.

use crate::PauseWish;
use crate::engine::{Engine, is_placed};
use crate::input::Action;
use crate::rejection::Rejection;
use job::{JobId, RunId, Status};

impl Engine {
    pub(crate) fn on_suspend_job(&mut self, id: JobId, by: String, now_ms: i64) -> Result<(), Rejection> {
        let job = self.live(id)?;
        let wanted = job.pause.as_ref().map(|wish| wish.suspend);
        match (job.status, wanted) {
            (_, Some(true)) | (Status::Suspended, None) => return Ok(()), // it is, or is about to be
            (Status::Running, _) | (Status::Suspended, Some(false)) => {}
            (status, _) => return Err(Rejection::NotRunning { job: id, status }),
        }
        if job.kill.is_some() {
            return Err(Rejection::AboutToEnd { job: id });
        }
        self.wish_pause(id, PauseWish { suspend: true, by, at_ms: now_ms });
        Ok(())
    }

    pub(crate) fn on_resume_job(&mut self, id: JobId, by: String, now_ms: i64) -> Result<(), Rejection> {
        let job = self.live(id)?;
        let wanted = job.pause.as_ref().map(|wish| wish.suspend);
        match (job.status, wanted) {
            (_, Some(false)) => return Ok(()), // it is about to
            (Status::Suspended, _) | (_, Some(true)) => {}
            (status, None) => return Err(Rejection::NotSuspended { job: id, status }),
        }
        self.wish_pause(id, PauseWish { suspend: false, by, at_ms: now_ms });
        Ok(())
    }

    fn wish_pause(&mut self, id: JobId, wish: PauseWish) {
        self.job_mut(id).pause = Some(wish);
        self.tell_pause(id);
    }

    /// Tells the agent of the job's run what is wished, if something is.
    pub(crate) fn tell_pause(&mut self, id: JobId) {
        let job = &self.jobs[&id].record;
        let placed = job.run.zip(job.agent.clone()).filter(|_| is_placed(job.status));
        if let (Some((run, agent)), Some(wish)) = (placed, job.pause.clone()) {
            self.act(Action::Pause { agent, run, suspend: wish.suspend, by: wish.by });
        }
    }

    /// The agent recorded that the run stands still, or that it goes on.
    pub(crate) fn on_paused(&mut self, run: RunId, suspended: bool) {
        let status = if suspended { Status::Suspended } else { Status::Running };
        let record = &self.runs[&run].record;
        let job = record.job;
        if !record.status.may_become(status) {
            return; // it was given up meanwhile, or it is so already
        }
        if self.set_run_status(run, status) {
            self.set_job_status(job, status);
        }
        let obeyed = |wish: &PauseWish| wish.suspend == suspended;
        if self.jobs.get(&job).is_some_and(|job| job.record.pause.as_ref().is_some_and(obeyed)) {
            self.forget_pause(job);
        }
    }

    /// Nobody wants the job to stand still, or to go on, any more.
    pub(crate) fn forget_pause(&mut self, id: JobId) {
        if self.jobs.get(&id).is_some_and(|job| job.record.pause.is_some()) {
            self.job_mut(id).pause = None;
        }
    }
}
