//! Prints the ledger of each run, the server's and the agent's view side by side.

use super::{JobRef, path};
use crate::client::Client;
use crate::output::{Output, or_empty, table};
use api::{Proof, RunProof, View};

pub(crate) fn run(client: &Client, output: &Output, job: JobRef) -> anyhow::Result<u8> {
    let mut proof: Proof = client.get(&path(job.id, "/proof"))?;
    if let Some(attempt) = job.attempt {
        proof.runs.retain(|run| run.attempt == attempt);
    }
    output.one(&proof, &proof.id.to_string(), |_| for_people(&proof))?;
    Ok(0)
}

fn for_people(proof: &Proof) -> String {
    let mut parts = vec![format!("Job {} is {}.", proof.id, proof.status)];
    if proof.runs.is_empty() {
        parts.push("It has no run yet, so there is nothing to prove.".to_owned());
    }
    parts.extend(proof.runs.iter().map(|run| run_for_people(proof.id, run)));
    parts.join("\n\n")
}

fn run_for_people(job: u64, run: &RunProof) -> String {
    let mut text = format!("Run {job}.{} ({}) on {}: {}", run.attempt, run.run_id, run.agent, run.status);
    if let Some(witness) = &run.witness {
        text.push_str(&format!(", witness: {witness}"));
    }
    let rows = run.steps.iter().map(|step| {
        let ((server_at, server), (agent_at, agent)) = (view(&step.server), view(&step.agent));
        vec![step.step.clone(), or_empty(&step.seq), server_at, server, agent_at, agent]
    });
    let heads = ["STEP", "SEQ", "SERVER AT (UTC)", "SERVER HAS", "AGENT AT (UTC)", "AGENT HAS"];
    text.push('\n');
    text.push_str(&table(&heads, rows));
    text.push('\n');
    text.push_str(&verdict(run));
    text
}

fn view(view: &Option<View>) -> (String, String) {
    match view {
        Some(view) => (view.at.map(|at| at.to_millis()).unwrap_or_default(), view.what.clone()),
        None => (String::new(), "–".to_owned()),
    }
}

fn verdict(run: &RunProof) -> String {
    match (&run.agent_missing, run.agrees) {
        (Some(why), _) => format!("The agent's view is missing: {why}"),
        (None, Some(true)) => "Server and agent agree, byte for byte.".to_owned(),
        (None, Some(false)) => "SERVER AND AGENT DIFFER: see the steps above.".to_owned(),
        (None, None) => "There is nothing to compare yet.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Status, Step, Time};

    #[test]
    fn both_views_stand_side_by_side() {
        let view = |what: &str| Some(View { at: Some(Time { ms: 1_234 }), what: what.into() });
        let run = RunProof {
            run_id: "r".into(),
            attempt: 1,
            agent: "host1".into(),
            status: Status::Error.into(),
            witness: Some("monitor".into()),
            agent_place: Some("settled".into()),
            agent_missing: None,
            agrees: Some(true),
            steps: vec![Step {
                step: "ended".into(),
                seq: Some(3),
                server: view("exit code 7"),
                agent: view("exit code 7"),
            }],
        };
        let text = for_people(&Proof { id: 1042, status: Status::Error.into(), runs: vec![run] });
        let line = text.lines().find(|line| line.starts_with("ended")).unwrap();
        assert_eq!(line.matches("exit code 7").count(), 2, "{text}");
        assert!(
            text.contains("Run 1042.1")
                && text.contains("witness: monitor")
                && text.ends_with("byte for byte.")
        );
    }
}
