//! Who may do what, for how long, and the count of it.

use super::Http;
use super::problem::Problem;
use crate::auth::{Caller, Role};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// A request with its answer's head may take this long, the reading of its body included. Longer than any long poll.
pub(super) const REQUEST_MAX: Duration = Duration::from_secs(100);

/// Lets a request pass whose token allows it, within its time, and counts it.
pub(super) async fn guard(State(http): State<Http>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let response = match admit(&http, &mut request).await {
        Ok(()) => tokio::time::timeout(REQUEST_MAX, next.run(request)).await.unwrap_or_else(|_| too_slow()),
        Err(problem) => problem.into_response(),
    };
    let status = response.status().as_u16();
    tracing::debug!(%method, route, status, "request");
    let labels = [("method", known(&method).to_owned()), ("route", route), ("status", status.to_string())];
    metrics::counter!("lastword_http_requests_total", &labels).increment(1);
    response
}

/// Puts the caller into the request's extensions.
async fn admit(http: &Http, request: &mut Request) -> Result<(), Problem> {
    let path = request.uri().path();
    let Some(needed) = role_needed(request.method(), path) else { return Ok(()) };
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = header
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = bearer else {
        return Err(refused("no token was sent (Authorization: Bearer …)"));
    };
    match http.app.tokens.verify(token.trim()).await {
        Some(caller) if caller.role >= needed => {
            request.extensions_mut().insert(caller);
            Ok(())
        }
        Some(Caller { name, role }) => {
            let detail = format!("token \"{name}\" has the role {role:?}; {needed:?} is needed for this");
            Err(Problem::new(StatusCode::FORBIDDEN, "role", "Not allowed", detail))
        }
        None => Err(refused("the token is not known to this server")),
    }
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
    if method == Method::GET || method == Method::HEAD {
        return Some(Role::Viewer);
    }
    // By whole segments: a queue may be named "hold", an agent "ping".
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let operator = match segments[..] {
        ["api", "v1", "jobs", ..] => true,
        ["api", "v1", "queues", _, "hold" | "release"]
        | ["api", "v1", "agents", _, "ping" | "drain" | "resume"] => method == Method::POST,
        _ => false,
    };
    Some(if operator { Role::Operator } else { Role::Admin })
}

/// A method's name if it is one that we know: others would let anybody make new counters.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_agents_needs_an_admin_and_what_is_not_listed_too() {
        let cases = [
            (Method::GET, "/api/v1/jobs/1", Some(Role::Viewer)),
            (Method::POST, "/api/v1/jobs", Some(Role::Operator)),
            (Method::POST, "/api/v1/jobs/1/kill", Some(Role::Operator)),
            (Method::POST, "/api/v1/queues/q/hold", Some(Role::Operator)),
            (Method::POST, "/api/v1/queues/q/release", Some(Role::Operator)),
            (Method::POST, "/api/v1/queues/hold/hold", Some(Role::Operator)),
            (Method::POST, "/api/v1/queues/q/attach", Some(Role::Admin)),
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
