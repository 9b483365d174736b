//! The ledger of a job: what the database holds beside what the agent has on disk.

use super::extract::Part;
use super::problem::Problem;
use super::{Http, jobs};
use api::{Proof, RunProof, Step, View};
use axum::Json;
use axum::extract::State;
use job::{JobId, Outcome};
use protocol::message::{AnswerBody, Fact, FactBody, Ledger, LedgerQuery, QueryBody, Stopping};
use scheduler::{FactRecord, RunRecord};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an agent has for its view; without it the server's is shown alone.
const LEDGER_MAX: Duration = Duration::from_secs(5);

/// The evidence for what is said of a job: step by step what the server and what the agent have on record.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/proof", tag = "jobs", params(("id" = u64, Path)),
    responses((status = 200, body = Proof), (status = 404, body = api::Problem)))]
pub(super) async fn proof(State(http): State<Http>, Part(id): Part<u64>) -> Result<Json<Proof>, Problem> {
    let (record, runs) = jobs::records(&http, JobId(id)).await?;
    let mut proofs = Vec::with_capacity(runs.len());
    for run in runs {
        let run_id = run.id;
        let facts = http.read(move |db| db.facts(run_id)).await?;
        let ledger = ledger(&http, &run).await;
        proofs.push(of_run(&run, &facts, ledger));
    }
    Ok(Json(Proof { id, status: record.status.into(), runs: proofs }))
}

/// The agent's view, or why there is none.
async fn ledger(http: &Http, run: &RunRecord) -> Result<Ledger, String> {
    let question = http.app.agents.query(&run.agent, run.id, QueryBody::Ledger(LedgerQuery {}));
    match tokio::time::timeout(LEDGER_MAX, question).await {
        Ok(Ok(AnswerBody::Ledger(ledger))) => Ok(ledger),
        Ok(Ok(AnswerBody::Output(_) | AnswerBody::Noted(_) | AnswerBody::Failed(_))) => {
            Err("its answer makes no sense".to_owned())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("agent \"{}\" did not answer within {} s", run.agent, LEDGER_MAX.as_secs())),
    }
}

fn of_run(run: &RunRecord, facts: &[FactRecord], ledger: Result<Ledger, String>) -> RunProof {
    let (ledger, missing) = match ledger {
        Ok(ledger) if ledger.records.is_empty() && ledger.place == NO_RECORD => {
            (Some(ledger), Some(format!("agent \"{}\" has no record of this run", run.agent)))
        }
        Ok(ledger) => (Some(ledger), None),
        Err(why) => (None, Some(why)),
    };
    let ours: BTreeMap<u64, &[u8]> = facts.iter().map(|fact| (fact.seq, &fact.bytes[..])).collect();
    let records = ledger.iter().flat_map(|ledger| &ledger.records);
    let theirs: BTreeMap<u64, &[u8]> = records.filter_map(|one| Some((one.seq?, &one.fact[..]))).collect();
    let agrees = (missing.is_none() && !ours.is_empty())
        .then(|| ours.iter().all(|(seq, bytes)| theirs.get(seq).is_some_and(|theirs| theirs == bytes)));
    RunProof {
        run_id: run.id.to_string(),
        attempt: run.attempt,
        agent: run.agent.clone(),
        status: run.status.into(),
        witness: run.witness.map(|witness| witness.to_string()),
        steps: steps(run, facts, &ours, &theirs, ledger.as_ref()),
        agent_place: ledger.map(|ledger| ledger.place),
        agent_missing: missing,
        agrees,
    }
}

/// How an agent names the place of a run that it does not have.
const NO_RECORD: &str = "no record";

fn steps(
    run: &RunRecord,
    facts: &[FactRecord],
    ours: &BTreeMap<u64, &[u8]>,
    theirs: &BTreeMap<u64, &[u8]>,
    ledger: Option<&Ledger>,
) -> Vec<Step> {
    let view = |at_ms: Option<i64>, what: String| Some(View { at: at_ms.map(Into::into), what });
    let step = |name: &str, server, agent| Step { step: name.to_owned(), seq: None, server, agent };
    let placed = view(Some(run.placed_at_ms), format!("attempt {} on {}", run.attempt, run.agent));
    let mut steps = vec![step("placed", placed, None)];
    let both: BTreeMap<u64, ()> = ours.keys().chain(theirs.keys()).map(|seq| (*seq, ())).collect();
    steps.extend(both.keys().map(|seq| of_fact(*seq, ours.get(seq).copied(), theirs.get(seq).copied())));
    if let Some(ledger) = ledger {
        let locked = if ledger.locked { ", held by its job-processor" } else { "" };
        let what = format!("{} messages, {}{locked}", theirs.len(), ledger.place);
        steps.push(step("stored", None, view(None, what)));
    }
    if let Some(last) = facts.last() {
        let what = format!("{} messages", facts.len());
        steps.push(step("received", view(Some(last.received_at_ms), what), None));
        steps.push(step("committed", view(last.committed_at_ms, format!("by commit {}", last.commit)), None));
    }
    if run.acked_seq > 0 {
        let server = view(None, format!("up to {}", run.acked_seq));
        let agent =
            ledger.and_then(|ledger| ledger.acked_seq).and_then(|seq| view(None, format!("up to {seq}")));
        steps.push(Step { seq: Some(run.acked_seq), ..step("acknowledged", server, agent) });
    }
    steps
}

/// A message of the run's log as each side has it.
fn of_fact(seq: u64, ours: Option<&[u8]>, theirs: Option<&[u8]>) -> Step {
    let name = [ours, theirs]
        .into_iter()
        .flatten()
        .find_map(|bytes| Fact::read(bytes).ok())
        .map_or("unreadable", |f| name(&f));
    Step { step: name.to_owned(), seq: Some(seq), server: ours.map(view_of), agent: theirs.map(view_of) }
}

fn view_of(bytes: &[u8]) -> View {
    match Fact::read(bytes) {
        Ok(fact) => View { at: fact.at_ms.map(Into::into), what: describe(&fact) },
        Err(error) => View { at: None, what: error.to_string() },
    }
}

fn name(fact: &Fact) -> &'static str {
    match &fact.body {
        Some(FactBody::Accepted(_)) => "accepted",
        Some(FactBody::Started(_)) => "started",
        Some(FactBody::Stopping(_)) => "stopping",
        Some(FactBody::Suspended(_)) => "suspended",
        Some(FactBody::Resumed(_)) => "resumed",
        Some(FactBody::Captured(_)) => "captured",
        Some(FactBody::Note(_)) => "note",
        Some(FactBody::Ended(_)) => "ended",
        None => "other",
    }
}

fn describe(fact: &Fact) -> String {
    match &fact.body {
        Some(FactBody::Accepted(_)) => "on disk".to_owned(),
        Some(FactBody::Started(started)) => {
            let pid = |pid: Option<u32>| pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
            format!("pid {} by job-processor {}", pid(started.pid), pid(started.job_processor_pid))
        }
        Some(FactBody::Stopping(stopping)) => describe_stopping(stopping),
        Some(FactBody::Suspended(suspended)) => format!("asked for by {}", suspended.by),
        Some(FactBody::Resumed(resumed)) => format!("asked for by {}", resumed.by),
        Some(FactBody::Captured(file)) => format!("{}, {} bytes", file.name, file.bytes.unwrap_or(0)),
        Some(FactBody::Note(note)) => note.text.clone(),
        Some(FactBody::Ended(ended)) => match Outcome::try_from(ended) {
            Ok(outcome) => describe_outcome(&outcome),
            Err(error) => error.to_string(),
        },
        None => "a message of a newer version".to_owned(),
    }
}

fn describe_stopping(stopping: &Stopping) -> String {
    match (stopping.timed_out_after_ms, &stopping.killed_by) {
        (Some(ms), _) => format!("its {} are over", api::Span { ms }),
        (None, Some(by)) => format!("asked for by {by}"),
        (None, None) => "told to end".to_owned(),
    }
}

fn describe_outcome(outcome: &Outcome) -> String {
    let end = match (outcome.exit_code(), outcome.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => outcome.status().to_string(),
    };
    match outcome.reason() {
        Some(reason) => format!("{end} ({reason}), witness {}", outcome.witness()),
        None => format!("{end}, witness {}", outcome.witness()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use job::{End, RunId, Status, Witness};
    use prost::Message;
    use protocol::message::{Accepted, Ended, RunFact};

    fn facts() -> Vec<Vec<u8>> {
        let outcome = Outcome::Ended {
            end: End::Exited { code: 7 },
            cause: None,
            witness: Witness::Monitor,
            usage: None,
        };
        let bodies = [FactBody::Accepted(Accepted::default()), FactBody::Ended(Ended::from(&outcome))];
        (1..).zip(bodies).map(|(at_ms, body)| Fact::new(at_ms, body).encode_to_vec()).collect()
    }

    fn run() -> RunRecord {
        RunRecord {
            id: RunId::new(0, 0),
            job: JobId(1),
            attempt: 1,
            agent: "host1".into(),
            status: Status::Error,
            placed_at_ms: 0,
            accepted_at_ms: Some(1),
            started_at_ms: None,
            ended_at_ms: Some(2),
            exit_code: Some(7),
            signal: None,
            core: false,
            witness: Some(Witness::Monitor),
            reason: None,
            usage: job::Usage::default(),
            acked_seq: 2,
            late: None,
        }
    }

    fn stored(facts: &[Vec<u8>]) -> Vec<FactRecord> {
        let record = |(seq, bytes): (u64, &Vec<u8>)| FactRecord {
            run: RunId::new(0, 0),
            seq,
            received_at_ms: 5,
            commit: 9,
            committed_at_ms: Some(6),
            bytes: bytes.clone(),
        };
        (1..).zip(facts).map(record).collect()
    }

    fn ledger(facts: &[Vec<u8>]) -> Ledger {
        let record =
            |(seq, fact): (u64, &Vec<u8>)| RunFact { run_id: None, seq: Some(seq), fact: fact.clone() };
        let records = (1..).zip(facts).map(record).collect();
        Ledger { place: "settled".into(), locked: false, records, acked_seq: Some(2), spec: None }
    }

    #[test]
    fn every_step_is_there_and_both_sides_agree() {
        let proof = of_run(&run(), &stored(&facts()), Ok(ledger(&facts())));
        let names: Vec<&str> = proof.steps.iter().map(|step| &step.step[..]).collect();
        assert_eq!(names, ["placed", "accepted", "ended", "stored", "received", "committed", "acknowledged"]);
        assert_eq!(proof.agrees, Some(true));
        assert_eq!(proof.steps[2].agent.as_ref().unwrap().what, "exit code 7, witness monitor");
    }

    #[test]
    fn a_difference_is_said() {
        let mut theirs = facts();
        theirs[1].push(0x7a);
        theirs[1].push(0);
        assert_eq!(of_run(&run(), &stored(&facts()), Ok(ledger(&theirs))).agrees, Some(false));
        assert_eq!(of_run(&run(), &stored(&facts()), Ok(ledger(&facts()[..1]))).agrees, Some(false));
    }

    #[test]
    fn without_the_agent_the_servers_view_stands_alone() {
        let proof = of_run(&run(), &stored(&facts()), Err("away".into()));
        assert_eq!((proof.agrees, proof.agent_missing.as_deref()), (None, Some("away")));
        assert!(proof.steps.iter().all(|step| step.agent.is_none()));
    }
}
