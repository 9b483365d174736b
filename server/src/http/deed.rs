//! What the audit calls a request that came to nothing before it was a command: as it would have called the command.

use axum::http::Method;

/// An action of the audit, and its object. Of what is to be made the name is in the body, which nobody has read: the object is its kind.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Deed {
    pub(super) action: String,
    pub(super) object: String,
}

/// What a request is about; `route` as it is described. One that no command answers to is named by its method and route.
pub(super) fn of(method: &Method, route: &str, path: &str) -> Deed {
    let deed = |action: &str, object: String| Deed { action: action.to_owned(), object };
    let segments: Vec<&str> = path.split('/').skip(3).collect(); // behind /api/v1
    let is_post = method == Method::POST;
    let known = match segments[..] {
        _ if !route.starts_with("/api/v1/") => None,
        ["jobs"] | ["jobs", "batch"] if is_post => Some(deed("job.submit", "job".to_owned())),
        ["queues"] if is_post => Some(deed("queue.create", "queue".to_owned())),
        ["agents"] if is_post => Some(deed("agent.add", "agent".to_owned())),
        ["users"] if is_post => Some(deed("user.add", "user".to_owned())),
        ["tokens"] if is_post => Some(deed("token.new", "token".to_owned())),
        ["server", "backups"] if is_post => Some(deed("server.backup", "server".to_owned())),
        ["server", verb] if is_post => Some(deed(&format!("server.{verb}"), "server".to_owned())),
        ["tokens", id] if method == Method::DELETE => Some(deed("token.revoke", format!("token/{id}"))),
        [kind @ ("queues" | "agents" | "users"), name] if method == Method::DELETE => {
            let kind = kind.trim_end_matches('s');
            Some(deed(&format!("{kind}.remove"), format!("{kind}/{name}")))
        }
        [kind @ ("jobs" | "queues" | "agents" | "users"), name, verb] if is_post => {
            let kind = kind.trim_end_matches('s');
            Some(deed(&format!("{kind}.{verb}"), format!("{kind}/{name}")))
        }
        _ => None,
    };
    known.unwrap_or_else(|| deed(&format!("{} {route}", name_of(method)), path.to_owned()))
}

/// A method's name if it is one that we know: others would let anybody make new counters.
pub(super) fn name_of(method: &Method) -> &'static str {
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
    fn a_refused_request_is_called_as_its_command_would_be() {
        let cases = [
            (Method::POST, "/api/v1/jobs", "/api/v1/jobs", "job.submit", "job"),
            (Method::POST, "/api/v1/jobs/{id}/kill", "/api/v1/jobs/1/kill", "job.kill", "job/1"),
            (Method::DELETE, "/api/v1/queues/{name}", "/api/v1/queues/q", "queue.remove", "queue/q"),
            (Method::POST, "/api/v1/server/backups", "/api/v1/server/backups", "server.backup", "server"),
            (Method::DELETE, "/api/v1/tokens/{id}", "/api/v1/tokens/abc", "token.revoke", "token/abc"),
            (Method::POST, "none", "/api/v1/jobs/1/frob", "POST none", "/api/v1/jobs/1/frob"),
            (Method::PUT, "/api/v1/jobs/{id}", "/api/v1/jobs/1", "other /api/v1/jobs/{id}", "/api/v1/jobs/1"),
        ];
        for (method, route, path, action, object) in cases {
            let deed = of(&method, route, path);
            assert_eq!((deed.action.as_str(), deed.object.as_str()), (action, object), "{method} {path}");
        }
    }
}
