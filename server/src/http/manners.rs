//! What HTTP itself has to say about requests that change something, and about what did not change.
//!
//! | header                | what is done                                                                                  |
//! |-----------------------|-----------------------------------------------------------------------------------------------|
//! | `ETag`                | `"<version>.<digest>"`: the version of what people change, and a digest of all that is shown  |
//! | `If-None-Match`       | 304 if all that is shown is the same                                                          |
//! | `If-Match`            | 412, decided by the core in the step that would change it, if the version is another one      |
//! | `Idempotency-Key`     | a second request like the first changes nothing, and is answered by what became of the first  |
//! | `X-Lastword-Reason`   | goes into the audit                                                                           |

use super::extract::BODY_BYTES_MAX;
use super::problem::Problem;
use super::serve::Peer;
use crate::auth::Caller;
use crate::core::{Once, Order};
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, USER_AGENT,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Why something is asked for, in the caller's words.
const REASON: HeaderName = HeaderName::from_static("x-lastword-reason");
/// Whether an answer is that of an earlier request with the same key.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The key of a request that must not be carried out twice.
const KEY: &str = "idempotency-key";
/// The longest key, and the longest text that is kept of a header.
const KEY_BYTES_MAX: usize = 255;
const TEXT_CHARS_MAX: usize = 500;

/// One thing with its version.
pub(super) struct Tagged<T> {
    /// Changes when somebody changes it.
    pub(super) version: String,
    /// What is shown.
    pub(super) body: T,
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let body = match serde_json::to_vec(&self.body) {
            Ok(body) => body,
            Err(e) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                return Problem::new(status, "internal", "It cannot be shown", e.to_string()).into_response();
            }
        };
        let digest: String = Sha256::digest(&body).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let headers = [
            (ETAG, format!("\"{}.{digest}\"", self.version)),
            (CONTENT_TYPE, "application/json".to_owned()),
            (CACHE_CONTROL, "no-cache".to_owned()),
        ];
        (headers, body).into_response()
    }
}

/// The order that a request makes. If it must not be carried out twice, its body is read here.
pub(super) async fn order(caller: Caller, request: &mut Request) -> Result<Arc<Order>, Problem> {
    let headers = request.headers();
    let from = request.extensions().get::<Peer>().map(|Peer(address)| address.to_string());
    let via = headers.get(USER_AGENT).map(|value| text(value, "User-Agent")).transpose()?;
    let reason = headers.get(REASON).map(|value| text(value, "X-Lastword-Reason")).transpose()?;
    let if_match = headers.contains_key(IF_MATCH).then(|| versions(headers, IF_MATCH));
    let mut order = Order::new(caller, from.unwrap_or_default(), via.unwrap_or_default());
    order.reason = reason.filter(|reason| !reason.is_empty());
    order.if_match = if_match;
    order.once = once(request).await?;
    Ok(Arc::new(order))
}

/// Handles a request by that order.
pub(super) async fn carry_out(order: Arc<Order>, request: Request, next: Next) -> Response {
    let mut response = Arc::clone(&order).during(next.run(request)).await;
    if order.is_repeated() {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// One line of limited length.
fn text(value: &HeaderValue, header: &str) -> Result<String, Problem> {
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Problem::unreadable(format!("the header {header} is not UTF-8")))?;
    Ok(text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect())
}

/// The entity tags of a header without their quotes. Of what people change only the version counts.
fn versions(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let tags = tags(headers, name).into_iter();
    tags.map(|tag| tag.split('.').next().unwrap_or_default().to_owned()).collect()
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let plain = |tag: &str| tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    lines.flat_map(|line| line.split(',').map(plain).collect::<Vec<_>>()).collect()
}

async fn once(request: &mut Request) -> Result<Option<Once>, Problem> {
    // A job has its key for as long as there is a record of it: its handler makes a field of the header.
    let is_submission = request.uri().path() == "/api/v1/jobs";
    let Some(key) = request.headers().get(KEY).filter(|_| !is_submission) else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
    let key = key.ok_or_else(|| {
        Problem::unreadable(format!(
            "the header Idempotency-Key must be 1 to {KEY_BYTES_MAX} ASCII characters"
        ))
    })?;
    let key = key.to_owned();
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|e| Problem::unreadable(format!("the body: {e}")))?;
    let mut digest = Sha256::new();
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    digest.update(format!("{} {target}\n", request.method()));
    digest.update(&body);
    *request.body_mut() = Body::from(body);
    Ok(Some(Once { key, digest: digest.finalize().into() }))
}

/// What a request said that its answer has to take account of.
pub(super) struct Asked {
    method: Method,
    if_none_match: Vec<String>,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Asked {
        Asked { method: request.method().clone(), if_none_match: tags(request.headers(), IF_NONE_MATCH) }
    }

    /// Leaves out what the asker has already; tells what a thing can be asked.
    pub(super) fn complete(&self, mut response: Response) -> Response {
        let is_look = self.method == Method::GET || self.method == Method::HEAD;
        if is_look && response.status() == StatusCode::OK && self.has(response.headers()) {
            response.headers_mut().remove(CONTENT_TYPE);
            response.headers_mut().remove(CONTENT_LENGTH);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::empty();
        }
        if self.method == Method::OPTIONS && response.status() == StatusCode::METHOD_NOT_ALLOWED {
            return StatusCode::NO_CONTENT.into_response(); // the router adds `Allow`
        }
        response
    }

    fn has(&self, headers: &HeaderMap) -> bool {
        let Some(tag) = headers.get(ETAG).and_then(|tag| tag.to_str().ok()) else { return false };
        self.if_none_match.iter().any(|known| known == "*" || known == tag.trim_matches('"'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_in_every_form_of_the_header() {
        let mut headers = HeaderMap::new();
        headers.append(IF_MATCH, HeaderValue::from_static("\"a.1\", W/\"b.2\""));
        headers.append(IF_MATCH, HeaderValue::from_static("*"));
        assert_eq!(tags(&headers, IF_MATCH), ["a.1", "b.2", "*"]);
        assert_eq!(versions(&headers, IF_MATCH), ["a", "b", "*"]);
    }

    #[test]
    fn a_reason_is_one_line_of_limited_length_in_any_language() {
        let value = HeaderValue::from_bytes("wegen Störung\tA".as_bytes()).unwrap();
        assert_eq!(text(&value, "x").unwrap(), "wegen Störung A");
        assert_eq!(
            text(&HeaderValue::from_str(&"x".repeat(9_999)).unwrap(), "x").unwrap().len(),
            TEXT_CHARS_MAX
        );
        assert!(text(&HeaderValue::from_bytes(&[0xff]).unwrap(), "x").is_err());
    }
}
