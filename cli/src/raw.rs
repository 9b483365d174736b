//! Any request, for what has no verb of its own.

use crate::client::{Call, Client};
use crate::exit::{NOT_FOUND, failure};
use crate::output;
use clap::Args;
use std::io::Read;
use ureq::http::Method;

/// A request to the REST interface.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastword api GET jobs/counts
  lastword api POST jobs -d '{\"command\":[\"/bin/true\"]}'
  generate-jobs | lastword api POST jobs/batch -d -
A path without a leading slash is taken below /api/v1/. The answer is printed as it is; a refusal goes to
standard error.")]
pub(crate) struct Api {
    /// GET, POST, DELETE, …
    #[arg(value_parser = read_method)]
    method: Method,
    /// The path, with its query.
    path: String,
    /// The body (JSON); `-` reads it from standard input.
    #[arg(short, long, value_name = "BODY")]
    data: Option<String>,
}

fn read_method(text: &str) -> Result<Method, String> {
    Method::from_bytes(text.to_uppercase().as_bytes())
        .map_err(|_| format!("\"{text}\" is not an HTTP method"))
}

impl Api {
    pub(crate) fn run(self, client: &Client) -> anyhow::Result<u8> {
        let body = match self.data.as_deref() {
            Some("-") => Some(read_stdin()?),
            Some(text) => Some(text.as_bytes().to_vec()),
            None => None,
        };
        let path = if self.path.starts_with('/') { self.path } else { format!("/api/v1/{}", self.path) };
        let repeatable = self.method == Method::GET;
        let reply =
            client.reply(&Call { method: self.method, path: &path, body, repeatable, ..Call::default() })?;
        output::bytes(&reply.body)?;
        if !reply.body.is_empty() && !reply.body.ends_with(b"\n") && is_text(&reply.headers) {
            output::bytes(b"\n")?;
        }
        Ok(0)
    }
}

fn is_text(headers: &ureq::http::HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    std::io::stdin()
        .read_to_end(&mut body)
        .map_err(|e| failure(NOT_FOUND, format!("cannot read the body from standard input: {e}")))?;
    Ok(body)
}
