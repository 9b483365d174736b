//! Work of the server that takes longer than a request: begun with one, and asked for until it is over.

use crate::client::{Call, CallError, Client, encode};
use crate::exit::{self, failure};
use crate::interrupt;
use crate::output::{Output, Row, moment, or_empty};
use crate::progress::Progress;
use api::{Operation, OperationList};
use serde::Serialize;
use ureq::http::Method;

/// How long one question to the server stays open; how far it has come is shown that often.
const POLL: &str = "500ms";
/// How many random bytes make an idempotency key.
const KEY_BYTES: usize = 16;

/// Begins an operation and waits for its end. Asked twice, because the first answer was lost, the server begins it once.
pub(crate) fn run<B: Serialize>(client: &Client, path: &str, body: &B) -> anyhow::Result<Operation> {
    let body = serde_json::to_vec(body).map_err(|e| CallError::Garbled(e.to_string()))?;
    let mut random = [0u8; KEY_BYTES];
    getrandom::fill(&mut random).map_err(|e| failure(exit::IO, format!("cannot get random bytes: {e}")))?;
    let key = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let headers = vec![("prefer", "respond-async".to_owned()), ("idempotency-key", key)];
    let call = Call { method: Method::POST, path, body: Some(body), repeatable: true, headers };
    let begun: Operation = client.reply(&call)?.read()?;
    wait(client, &begun.id)
}

/// Waits until it is over, and shows how far it has come. A failure is an error.
pub(crate) fn wait(client: &Client, id: &str) -> anyhow::Result<Operation> {
    interrupt::detach(format!("operation {id} goes on. Come back with: lastword server wait {id}"));
    let question = format!("/api/v1/server/operations/{}?wait={POLL}", encode(id));
    let mut progress = Progress::new("", 0, false);
    loop {
        let operation: Operation = client.patiently(|| client.get(&question))?;
        match operation.state.as_str() {
            "running" => {
                if let Some(now) = &operation.progress {
                    progress.step(&now.step, now.total, now.unit == "bytes");
                    progress.at(now.done);
                }
            }
            "failed" => {
                let why = operation.failure.as_deref().unwrap_or("no reason was told");
                let text = format!("{} {id} failed: {why}", operation.kind);
                return Err(failure(exit::REFUSED, text));
            }
            _ => return Ok(operation),
        }
    }
}

/// Lists those that the server remembers.
pub(crate) fn list(client: &Client, output: &Output) -> anyhow::Result<()> {
    output.list(&client.get::<OperationList>("/api/v1/server/operations")?.items)
}

impl Row for Operation {
    fn heads(wide: bool) -> Vec<&'static str> {
        let mut heads = vec!["OPERATION", "KIND", "STATE", "BY", "BEGUN", "PROGRESS"];
        if wide {
            heads.extend(["ENDED", "FAILURE"]);
        }
        heads
    }

    fn cells(&self, wide: bool) -> Vec<String> {
        let progress = self.progress.as_ref().filter(|_| self.state == "running");
        let progress = progress.map(|now| match now.total {
            0 => now.step.clone(),
            total => format!("{}: {} of {total} {}", now.step, now.done, now.unit),
        });
        let mut cells = vec![
            self.id.clone(),
            self.kind.clone(),
            self.state.clone(),
            self.by.clone(),
            moment(Some(self.begun_at), wide),
            progress.unwrap_or_default(),
        ];
        if wide {
            cells.extend([moment(self.ended_at, true), or_empty(&self.failure)]);
        }
        cells
    }

    fn name(&self) -> String {
        self.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Place;
    use crate::fake;
    use serde_json::json;

    fn operation(state: &str) -> serde_json::Value {
        json!({"id": "1-2", "kind": "check", "state": state, "by": "anna", "begun_at": "2026-11-22T09:00:00Z"})
    }

    #[test]
    fn it_is_begun_once_and_waited_for_while_the_server_comes_and_goes() {
        let done = operation("done").to_string();
        let answers = vec![
            String::new(),
            fake::answer(202, &operation("running").to_string()),
            fake::answer(200, &operation("running").to_string()),
            fake::problem(503, "stopping", "the server stops"),
            fake::answer(200, &done),
        ];
        let (urls, asked) = fake::server(answers);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        assert_eq!(run(&client, "/api/v1/server/check", &()).unwrap().state, "done");
        let asked = asked.join().unwrap();
        let key = |request: &str| {
            request.lines().find_map(|line| line.strip_prefix("idempotency-key: ").map(str::to_owned))
        };
        assert!(asked[0].contains("prefer: respond-async"), "{}", asked[0]);
        assert_eq!(key(&asked[0]).unwrap().len(), 2 * KEY_BYTES);
        assert_eq!(key(&asked[0]), key(&asked[1]), "the second time is the same request");
        assert!(asked[2].starts_with("GET /api/v1/server/operations/1-2?wait="), "{}", asked[2]);
    }

    #[test]
    fn a_failure_is_told_with_its_reason() {
        let mut failed = operation("failed");
        failed["failure"] = json!("no room");
        let (urls, _) = fake::server(vec![fake::answer(200, &failed.to_string())]);
        let client = Client::new(&Place { urls, token_file: None, ca_file: None }).unwrap();
        let error = wait(&client, "1-2").unwrap_err();
        assert_eq!(error.to_string(), "check 1-2 failed: no room");
        assert_eq!(exit::report(&error), exit::REFUSED);
    }
}
