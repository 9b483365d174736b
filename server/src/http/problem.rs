//! Every refusal as RFC 9457 `application/problem+json`.

use crate::agents::QueryError;
use crate::core::{AccessRefusal, CoreError};
use crate::db::DbError;
use crate::files::StoreError;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use scheduler::Rejection;

/// A refusal.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
}

/// The detail of a refusal, beside its answer.
#[derive(Clone)]
pub(super) struct Refused(pub(super) String);

/// When a client may try again what cannot be done now, seconds.
const RETRY_AFTER_S: u32 = 1;

impl Problem {
    /// `kind` is stable and ends the problem's `type`; `title` says it in words; `detail` says what was tried and what to do.
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        Problem { status, kind, title, detail: detail.into() }
    }

    /// The request cannot be read at all.
    pub(super) fn unreadable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "unreadable", "The request cannot be read", detail)
    }

    /// The request can be read and makes no sense.
    pub(super) fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request makes no sense", detail)
    }

    /// There is no such job.
    pub(super) fn no_such_job(job: u64) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "no-such-job", "No such job", format!("there is no job {job}"))
    }

    /// The server is about to end.
    pub(super) fn stopping() -> Problem {
        let detail = "the server stops; try again in a moment";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The server stops", detail)
    }

    /// The core does not answer, for these reasons as far as they are known.
    pub(super) fn stuck(problems: &[String]) -> Problem {
        let detail = match problems {
            [] => "the core does not answer; try again in a moment".to_owned(),
            known => known.join("; "),
        };
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stuck", "No progress", detail)
    }

    /// What was tried, and what went wrong.
    pub(super) fn detail(self) -> String {
        self.detail
    }

    /// In the request's body a thing that does not exist is not "not found": the address is right.
    pub(super) fn in_body(self) -> Problem {
        let status =
            if self.status == StatusCode::NOT_FOUND { StatusCode::UNPROCESSABLE_ENTITY } else { self.status };
        Problem { status, ..self }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

/// Answers addresses that are not there.
pub(super) async fn no_such_address(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("there is nothing at {path}; /api/openapi.json lists what there is");
    Problem::new(StatusCode::NOT_FOUND, "no-such-address", "No such address", detail)
}

/// Answers methods that an address does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("{path} does not take {method}; /api/openapi.json lists what it takes");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", "No such method", detail)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let refused = Refused(self.detail.clone());
        let problem = api::Problem {
            kind: format!("urn:lastword:problem:{}", self.kind),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let mut response = (self.status, axum::Json(problem)).into_response();
        response.extensions_mut().insert(refused);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}

impl From<CoreError> for Problem {
    fn from(error: CoreError) -> Problem {
        match error {
            CoreError::Rejected(rejection) => rejection.into(),
            CoreError::Database(error) => error.into(),
            CoreError::Access(refusal) => refusal.into(),
            CoreError::Changed(_) => Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "changed",
                "It was changed meanwhile",
                error.to_string(),
            ),
            CoreError::KeyReused(_) => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "The idempotency key belongs to another request",
                error.to_string(),
            ),
            CoreError::DiskFull(text) => {
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk-full", "No room for new jobs", text)
            }
            CoreError::Stopping => Problem::stopping(),
        }
    }
}

impl From<AccessRefusal> for Problem {
    fn from(refusal: AccessRefusal) -> Problem {
        let (status, kind, title) = match &refusal {
            AccessRefusal::NoSuchUser(_) => (StatusCode::NOT_FOUND, "no-such-user", "No such user"),
            AccessRefusal::NoSuchToken(_) => (StatusCode::NOT_FOUND, "no-such-token", "No such token"),
            AccessRefusal::NameTaken(..) => (StatusCode::CONFLICT, "name-taken", "The name is taken"),
            AccessRefusal::BadName(..) => (StatusCode::UNPROCESSABLE_ENTITY, "bad-name", "Not a name"),
            AccessRefusal::Disabled(_) => (StatusCode::CONFLICT, "disabled", "The user is disabled"),
            AccessRefusal::AlreadyRevoked(_) => {
                (StatusCode::CONFLICT, "already-revoked", "The token is revoked already")
            }
            AccessRefusal::LastAdmin => (StatusCode::CONFLICT, "last-admin", "No admin would be left"),
        };
        Problem::new(status, kind, title, refusal.to_string())
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Problem {
        tracing::error!(%error, "a request could not be answered from the database");
        let (status, kind) = match error {
            DbError::Retry(_) => (StatusCode::SERVICE_UNAVAILABLE, "database-busy"),
            DbError::Unusable(_) | DbError::Damaged(_) => (StatusCode::INTERNAL_SERVER_ERROR, "database"),
        };
        Problem::new(status, kind, "The database cannot be used", error.to_string())
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Problem {
        let (status, kind, title) = match &rejection {
            Rejection::NoSuchJob(_) => (StatusCode::NOT_FOUND, "no-such-job", "No such job"),
            Rejection::NoSuchQueue(_) => (StatusCode::NOT_FOUND, "no-such-queue", "No such queue"),
            Rejection::NoSuchAgent(_) => (StatusCode::NOT_FOUND, "no-such-agent", "No such agent"),
            Rejection::NameTaken(..) => (StatusCode::CONFLICT, "name-taken", "The name is taken"),
            Rejection::BadName(..) => (StatusCode::UNPROCESSABLE_ENTITY, "bad-name", "Not a name"),
            Rejection::AlreadyFinal { .. } => (StatusCode::CONFLICT, "already-over", "The job is over"),
            Rejection::AlreadyPlaced { .. } => {
                (StatusCode::CONFLICT, "already-placed", "The job was given to an agent")
            }
            Rejection::NotRunning { .. } => (StatusCode::CONFLICT, "not-running", "The job does not run"),
            Rejection::NotSuspended { .. } => {
                (StatusCode::CONFLICT, "not-suspended", "The job is not suspended")
            }
            Rejection::AboutToEnd { .. } => (StatusCode::CONFLICT, "about-to-end", "The job is being killed"),
            Rejection::NotAdopted(_) => (StatusCode::CONFLICT, "not-adopted", "The run does not fit"),
            Rejection::NotHeld { .. } => (StatusCode::CONFLICT, "not-held", "The job is not held"),
            Rejection::NotOver { .. } => (StatusCode::CONFLICT, "not-over", "The job is not over"),
            Rejection::NeverTwice { .. } => {
                (StatusCode::CONFLICT, "never-twice", "The job must not be executed twice")
            }
            Rejection::NoReason => (StatusCode::UNPROCESSABLE_ENTITY, "no-reason", "A reason is needed"),
            Rejection::AgentPresent { .. } => {
                (StatusCode::CONFLICT, "agent-present", "The job's agent is connected")
            }
            Rejection::BadSettings(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The job cannot be run")
            }
            Rejection::BadSpec(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The job cannot be run"),
            Rejection::KeyReused { .. } => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "The idempotency key belongs to another request",
            ),
            Rejection::KeyTwice(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "The idempotency key stands at two different jobs",
            ),
            Rejection::QueueInUse { .. } => (StatusCode::CONFLICT, "queue-in-use", "The queue has jobs"),
            Rejection::AgentInUse { .. } => (StatusCode::CONFLICT, "agent-in-use", "The agent has runs"),
            Rejection::OutOfRange { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "A number is out of its range")
            }
        };
        Problem::new(status, kind, title, rejection.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        let (status, kind) = match error {
            StoreError::Missing => (StatusCode::GONE, "gone"),
            StoreError::Away(_) => (StatusCode::SERVICE_UNAVAILABLE, "file-store-away"),
        };
        Problem::new(status, kind, "The file store cannot give it", error.to_string())
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Problem {
        let (status, kind, title) = match &error {
            QueryError::Away(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "agent-away", "The agent is not connected")
            }
            QueryError::TimedOut { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "agent-slow", "The agent does not answer")
            }
            QueryError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "The server stops"),
            QueryError::Crowded => {
                (StatusCode::SERVICE_UNAVAILABLE, "too-many-readers", "Too many read output")
            }
            QueryError::TooOld { .. } => {
                (StatusCode::CONFLICT, "agent-too-old", "The agent is too old for this")
            }
            QueryError::Gone { .. } => (StatusCode::GONE, "gone", "It is there no more"),
            QueryError::Failed { .. } => (StatusCode::BAD_GATEWAY, "agent-cannot", "The agent cannot answer"),
        };
        Problem::new(status, kind, title, error.to_string())
    }
}
