//! Reads bodies, queries and paths; what cannot be read is refused with the place and, for a misspelt name, the nearest right one.

use super::problem::Problem;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// The largest body.
pub(super) const BODY_BYTES_MAX: usize = 16 << 20;
/// A suggestion is made from this similarity on (Jaro-Winkler, 0 to 1).
const SIMILAR_MIN: f64 = 0.75;

/// A JSON body. The content type does not matter: there is only one.
pub(super) struct Body<T>(pub(super) T);

/// A JSON body that may be left out: then it is `T::default()`.
pub(super) struct OptionalBody<T>(pub(super) T);

/// What follows the question mark.
pub(super) struct Params<T>(pub(super) T);

/// The parts of a path.
pub(super) struct Part<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read_json(&bytes(request, state).await?).map(Body)
    }
}

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = bytes(request, state).await?;
        if bytes.trim_ascii().is_empty() {
            Ok(OptionalBody(T::default()))
        } else {
            read_json(&bytes).map(OptionalBody)
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(error) => {
                use std::error::Error as _;
                let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                Err(Problem::unreadable(format!("the query: {}", suggest(&text))))
            }
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Part<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(part)) => Ok(Part(part)),
            Err(error) => {
                let detail = format!("the address {}: {}", parts.uri.path(), error.body_text());
                Err(Problem::new(StatusCode::NOT_FOUND, "no-such-address", "No such address", detail))
            }
        }
    }
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    match Bytes::from_request(request, state).await {
        Ok(bytes) => Ok(bytes),
        Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_))) => {
            let detail =
                format!("the body is larger than {} MiB; send it in smaller parts", BODY_BYTES_MAX >> 20);
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail))
        }
        Err(error) => Err(Problem::unreadable(format!("the body: {error}"))),
    }
}

pub(super) fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let detail = format!("the body: {}", suggest(&error.to_string()));
        match error.classify() {
            serde_json::error::Category::Data => Problem::invalid(detail),
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => Problem::unreadable(detail),
        }
    })
}

/// Adds the nearest known name to what serde says of an unknown one: "unknown field `comand`, expected one of `command`, …".
fn suggest(text: &str) -> String {
    if !text.starts_with("unknown ") {
        return text.to_owned();
    }
    let mut names = text.split('`').skip(1).step_by(2);
    let Some(wrong) = names.next() else { return text.to_owned() };
    let near = names
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(similar, _)| *similar >= SIMILAR_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, name)) => format!("{text}; did you mean `{name}`?"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: DeserializeOwned>(json: &str) -> (StatusCode, String) {
        let problem = read_json::<T>(json.as_bytes()).err().unwrap();
        (problem.status(), format!("{problem:?}"))
    }

    #[test]
    fn a_misspelt_field_is_refused_with_the_right_one() {
        let (status, text) = refusal::<api::JobSubmit>(r#"{"comand":["/bin/true"]}"#);
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(text.contains("did you mean `command`?") && text.contains("line 1 column"), "{text}");
    }

    #[test]
    fn bad_json_is_refused_with_its_place() {
        let (status, text) = refusal::<api::JobSubmit>("{\"command\":\n[}");
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(text.contains("line 2 column 2"), "{text}");
    }

    #[test]
    fn nothing_is_suggested_that_is_not_near() {
        let (_, text) = refusal::<api::Kill>(r#"{"zzz":1}"#);
        assert!(!text.contains("did you mean"), "{text}");
    }

    #[test]
    fn nesting_without_end_is_refused_not_followed() {
        let (status, _) = refusal::<serde_json::Value>(&"[".repeat(100_000));
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
}
