//! Who may do what, for how long, and the count of it.

use super::Http;
use super::deed::{self, Deed};
use super::manners;
use super::problem::{Problem, Refused};
use crate::auth::Role;
use crate::core::Order;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;

/// A request with its answer's head may take this long, the reading of its body included. Longer than any long poll.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(100);

/// Lets a request pass whose token allows it, within its time, and counts it.
pub(super) async fn guard(State(http): State<Http>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let asked = manners::Asked::of(&request);
    let handling = async {
        match admit(&http, &route, &mut request).await {
            Ok(None) => next.run(request).await,
            Ok(Some(order)) => {
                let deed = deed::of(request.method(), &route, request.uri().path());
                let response = manners::carry_out(Arc::clone(&order), request, next).await;
                if let Some(detail) = untold(&order, &deed, &response) {
                    note_refusal(&http, order, &deed, &detail).await;
                }
                response
            }
            Err(problem) => problem.into_response(),
        }
    };
    let response = tokio::time::timeout(REQUEST_MAX, handling).await.unwrap_or_else(|_| too_slow());
    let response = asked.complete(response);
    let status = response.status().as_u16();
    tracing::debug!(%method, route, status, "request");
    let labels =
        [("method", deed::name_of(&method).to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("lastword_http_requests_total", &labels).increment(1);
    response
}

/// Puts the caller into the request's extensions; makes an order of what may change something.
async fn admit(http: &Http, route: &str, request: &mut Request) -> Result<Option<Arc<Order>>, Problem> {
    let Some(needed) = role_needed(request.method(), request.uri().path()) else { return Ok(None) };
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = header
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = bearer else {
        return Err(refused("no token was sent (Authorization: Bearer …)"));
    };
    let caller = http.app.tokens.verify(token.trim(), os::clock::wall_ms()).await;
    let caller = caller.map_err(|refusal| refused(&refusal.to_string()))?;
    request.extensions_mut().insert(caller.clone());
    let changes = !is_look(request.method());
    if caller.role >= needed {
        return if changes { manners::order(caller, request).await.map(Some) } else { Ok(None) };
    }
    let (have, need) = (caller.role.name(), needed.name());
    let detail = format!("token \"{}\" has the role {have}; {need} is needed for this", caller.token);
    if changes {
        let deed = deed::of(request.method(), route, request.uri().path());
        let order = manners::order(caller, request).await?;
        note_refusal(http, order, &deed, &detail).await;
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "role", "Not allowed", detail))
}

/// Why a change was refused before it came to the core, which keeps what it refuses itself. A ping changes nothing.
fn untold(order: &Order, deed: &Deed, response: &Response) -> Option<String> {
    let is_change = deed.action != "agent.ping";
    let is_ours = response.status().is_client_error() && is_change && !order.is_on_record();
    response.extensions().get::<Refused>().filter(|_| is_ours).map(|Refused(detail)| detail.clone())
}

/// Somebody tried what was not allowed, or could not be: that is kept.
async fn note_refusal(http: &Http, order: Arc<Order>, Deed { action, object }: &Deed, detail: &str) {
    let note = http.app.handle.note(action, object, serde_json::Map::new(), Some(detail.to_owned()));
    if let Err(e) = order.during(note).await {
        tracing::warn!("a refused {action} could not be noted in the audit: {e}");
    }
}

/// It changes nothing.
fn is_look(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD || method == Method::OPTIONS
}

fn refused(detail: &str) -> Problem {
    metrics::counter!("lastword_http_auth_failures_total").increment(1);
    Problem::new(StatusCode::UNAUTHORIZED, "token", "The token was refused", detail)
}

fn too_slow() -> Response {
    let detail = format!("the request took longer than {} s", REQUEST_MAX.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The request took too long", detail).into_response()
}

/// The least role for a request; `None` where no token is asked for.
fn role_needed(method: &Method, path: &str) -> Option<Role> {
    if !path.starts_with("/api/") || path == "/api/openapi.json" {
        return None;
    }
    // By whole segments: a queue may be named "hold", an agent "ping".
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if is_look(method) {
        return Some(match segments[..] {
            ["api", "v1", "audit" | "tokens" | "users", ..] => Role::Admin,
            ["api", "v1", "agents", _, "logs", ..] => Role::Operator,
            _ => Role::Viewer,
        });
    }
    let operator = match segments[..] {
        ["api", "v1", "jobs", ..] => true,
        ["api", "v1", "queues", _, "hold" | "release"]
        | ["api", "v1", "agents", _, "ping" | "drain" | "resume"] => method == Method::POST,
        _ => false,
    };
    Some(if operator { Role::Operator } else { Role::Admin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_settings_of_agents_and_queues_needs_an_admin_and_what_is_not_listed_too() {
        let cases = [
            (Method::GET, "/api/v1/jobs/1", Some(Role::Viewer)),
            (Method::OPTIONS, "/api/v1/jobs/1", Some(Role::Viewer)),
            (Method::GET, "/api/v1/events", Some(Role::Viewer)),
            (Method::GET, "/api/v1/audit", Some(Role::Admin)),
            (Method::HEAD, "/api/v1/tokens", Some(Role::Admin)),
            (Method::GET, "/api/v1/users", Some(Role::Admin)),
            (Method::GET, "/api/v1/agents/a/logs/network-processor", Some(Role::Operator)),
            (Method::GET, "/api/v1/agents/logs", Some(Role::Viewer)),
            (Method::POST, "/api/v1/tokens", Some(Role::Admin)),
            (Method::POST, "/api/v1/jobs", Some(Role::Operator)),
            (Method::POST, "/api/v1/jobs/1/kill", Some(Role::Operator)),
            (Method::POST, "/api/v1/queues/q/hold", Some(Role::Operator)),
            (Method::POST, "/api/v1/queues/q/release", Some(Role::Operator)),
            (Method::POST, "/api/v1/queues/hold/hold", Some(Role::Operator)),
            (Method::POST, "/api/v1/queues/q/set", Some(Role::Admin)),
            (Method::POST, "/api/v1/queues/q/attach", Some(Role::Admin)),
            (Method::POST, "/api/v1/queues/q/detach", Some(Role::Admin)),
            (Method::POST, "/api/v1/agents/a/set", Some(Role::Admin)),
            (Method::POST, "/api/v1/server/backups", Some(Role::Admin)),
            (Method::POST, "/api/v1/queues/q/attach/hold", Some(Role::Admin)),
            (Method::DELETE, "/api/v1/queues/q/hold", Some(Role::Admin)),
            (Method::DELETE, "/api/v1/queues/hold", Some(Role::Admin)),
            (Method::DELETE, "/api/v1/queues/release", Some(Role::Admin)),
            (Method::DELETE, "/api/v1/queues/q%2Fhold", Some(Role::Admin)),
            (Method::POST, "/api/v1/agents/a/ping", Some(Role::Operator)),
            (Method::POST, "/api/v1/agents/a/drain", Some(Role::Operator)),
            (Method::POST, "/api/v1/agents/a/resume", Some(Role::Operator)),
            (Method::DELETE, "/api/v1/agents/ping", Some(Role::Admin)),
            (Method::POST, "/api/v1/agents/ping/set", Some(Role::Admin)),
            (Method::POST, "/api/v1/jobsx", Some(Role::Admin)),
            (Method::POST, "/api/v1/agents", Some(Role::Admin)),
            (Method::DELETE, "/api/v1/agents/a", Some(Role::Admin)),
            (Method::PUT, "/api/v1/whatever", Some(Role::Admin)),
            (Method::GET, "/api/openapi.json", None),
            (Method::GET, "/metrics", None),
        ];
        for (method, path, role) in cases {
            assert_eq!(role_needed(&method, path), role, "{method} {path}");
        }
    }
}
