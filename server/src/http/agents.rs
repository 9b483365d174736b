//! Agents: make known, show, change, forget, ping.

use super::extract::{self, Params, Part};
use super::manners::Tagged;
use super::output::{LetGo, Pieces, let_go};
use super::page::Page;
use super::problem::Problem;
use super::{Http, show};
use crate::agents::TraceWanted;
use crate::auth::Caller;
use crate::core::tag;
use api::{Agent, AgentAdd, AgentChange, AgentDrainRequest, AgentList, Ping, Span};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::HeaderName;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::response::{IntoResponse, Response};
use protocol::message::TraceKind;
use scheduler::{Dial, NewAgent};
use serde::Deserialize;
use std::time::Duration;
use utoipa::IntoParams;

/// Where an agent listens if nobody said otherwise.
const PORT_DEFAULT: u16 = 7412;
/// How many runs an agent may have at once if nobody said otherwise.
const SLOTS_DEFAULT: u32 = 100;

/// List the agents, by name.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", params(Page),
    responses((status = 200, body = AgentList), (status = 400, body = api::Problem)))]
pub(super) async fn list(
    State(http): State<Http>,
    Params(page): Params<Page>,
) -> Result<Json<AgentList>, Problem> {
    let (views, next_cursor) = page.of_names(http.app.handle.agents().await?, |view| &view.record.name)?;
    let live = |name: &str| http.app.agents.live(name);
    let items = views.iter().map(|view| show::agent(view, live(&view.record.name).as_ref())).collect();
    Ok(Json(AgentList { items, next_cursor }))
}

/// Make an agent known: one that the server dials (`host`, `port`), or one that dials the server (`dials_in`).
#[utoipa::path(post, path = "/api/v1/agents", tag = "agents", request_body = AgentAdd,
    responses((status = 201, body = Agent), (status = 409, description = "the name is taken", body = api::Problem),
        (status = 422, body = api::Problem)))]
pub(super) async fn add(
    State(http): State<Http>,
    extract::Body(request): extract::Body<AgentAdd>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<Agent>), Problem> {
    let name = request.name.clone();
    http.app.handle.add_agent(new_agent(request)?).await.map_err(|e| Problem::from(e).in_body())?;
    let agent = load(&http, &name).await?;
    Ok((StatusCode::CREATED, [(LOCATION, format!("/api/v1/agents/{name}"))], Json(agent)))
}

/// Show an agent.
#[utoipa::path(get, path = "/api/v1/agents/{name}", tag = "agents", params(("name" = String, Path)),
    responses((status = 200, body = Agent), (status = 404, body = api::Problem)))]
pub(super) async fn show(
    State(http): State<Http>,
    Part(name): Part<String>,
) -> Result<Tagged<Agent>, Problem> {
    let view = http.app.handle.agent(&name).await?;
    let body = show::agent(&view, http.app.agents.live(&name).as_ref());
    Ok(Tagged { version: tag::of_agent(&view), body })
}

/// Change an agent's number of slots, or give it a new secret; the secret before stays valid beside it until it is retired.
#[utoipa::path(post, path = "/api/v1/agents/{name}/set", tag = "agents", params(("name" = String, Path)), request_body = AgentChange,
    responses((status = 200, body = Agent), (status = 404, body = api::Problem), (status = 422, body = api::Problem)))]
pub(super) async fn set(
    State(http): State<Http>,
    Part(name): Part<String>,
    extract::Body(change): extract::Body<AgentChange>,
) -> Result<Json<Agent>, Problem> {
    let secret = match (&change.secret, &change.secret_hex) {
        (None, None) => None,
        (Some(_), _) | (_, Some(_)) => Some(read_secret(change.secret, change.secret_hex)?),
    };
    if let Some(slots) = change.slots {
        http.app.handle.set_slots(&name, slots).await?;
    }
    if let Some(secret) = secret {
        http.app.handle.set_secret(&name, secret).await?;
    }
    if change.retire_old_secret {
        http.app.handle.retire_secrets(&name).await?;
    }
    Ok(Json(load(&http, &name).await?))
}

/// Place no new runs on an agent; what runs there goes on.
#[utoipa::path(post, path = "/api/v1/agents/{name}/drain", tag = "agents", params(("name" = String, Path)), request_body = AgentDrainRequest,
    responses((status = 200, body = Agent), (status = 404, body = api::Problem), (status = 422, body = api::Problem)))]
pub(super) async fn drain(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Part(name): Part<String>,
    extract::Body(request): extract::Body<AgentDrainRequest>,
) -> Result<Json<Agent>, Problem> {
    let reason = request.reason.unwrap_or_default();
    http.app.handle.drain_agent(&name, &caller.name, &reason).await?;
    Ok(Json(load(&http, &name).await?))
}

/// Place runs on an agent again; trouble that was noticed with it is taken for cleared up.
#[utoipa::path(post, path = "/api/v1/agents/{name}/resume", tag = "agents", params(("name" = String, Path)),
    responses((status = 200, body = Agent), (status = 404, body = api::Problem)))]
pub(super) async fn resume(
    State(http): State<Http>,
    Part(name): Part<String>,
) -> Result<Json<Agent>, Problem> {
    http.app.handle.resume_agent(&name).await?;
    Ok(Json(load(&http, &name).await?))
}

/// How an agent is to be forgotten.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Remove {
    /// Forget it even if it has runs without an outcome: these become Unknown.
    #[serde(default)]
    force: bool,
}

/// Forget an agent.
#[utoipa::path(delete, path = "/api/v1/agents/{name}", tag = "agents", params(("name" = String, Path), Remove),
    responses((status = 204, description = "it is forgotten"), (status = 404, body = api::Problem),
        (status = 409, description = "it has runs without an outcome", body = api::Problem)))]
pub(super) async fn remove(
    State(http): State<Http>,
    Extension(caller): Extension<Caller>,
    Part(name): Part<String>,
    Params(params): Params<Remove>,
) -> Result<StatusCode, Problem> {
    http.app.handle.remove_agent(&name, params.force, &caller.name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which part of a trace.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Tail {
    /// So many bytes before its present end, from the beginning of a line on; 65536 if absent.
    tail: Option<u64>,
    /// Go on with what is traced later; the answer has no length, and no end unless `wait` says one.
    #[serde(default)]
    follow: bool,
    /// With `follow`: end the answer after this time.
    #[param(value_type = Option<String>, example = "60s")]
    wait: Option<Span>,
}

/// Read what an agent's programs traced, from the agent itself: the newest lines, and with `follow` what comes.
#[utoipa::path(get, path = "/api/v1/agents/{name}/logs/{program}", tag = "agents",
    params(("name" = String, Path), ("program" = String, Path, description = "`network-processor` or `platform-agent`"), Tail),
    responses((status = 200, description = "the lines", content_type = "text/plain", body = String),
        (status = 404, description = "no such agent or program", body = api::Problem),
        (status = 409, description = "the agent is too old for this", body = api::Problem),
        (status = 503, description = "it is not connected, or too many read", body = api::Problem)))]
pub(super) async fn logs(
    State(http): State<Http>,
    Part((name, program)): Part<(String, String)>,
    Params(part): Params<Tail>,
) -> Result<Response, Problem> {
    let known = TraceKind::ALL.into_iter().find(|kind| kind.program() == program);
    let program = known.ok_or_else(|| {
        let names = TraceKind::ALL.map(TraceKind::program).join(" and ");
        let detail = format!("an agent has traces of {names}, not of \"{program}\"");
        Problem::new(StatusCode::NOT_FOUND, "no-such-address", "No such address", detail)
    })?;
    http.app.handle.agent(&name).await?;
    let wanted = TraceWanted { program, tail: part.tail.unwrap_or(TAIL_BYTES), follow: part.follow };
    let output = http.app.agents.trace(&name, wanted).await?;
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    if part.follow {
        let wait = part.wait.map(|wait| Duration::from_millis(wait.ms));
        let until = Some(Box::pin(let_go(http.stopping.clone(), wait)) as LetGo);
        return Ok((headers, Body::new(Pieces { output, until })).into_response());
    }
    // A body that stays shorter than promised breaks the connection: the reader sees that something is missing.
    let length = output.size.to_string();
    let body = Body::new(Pieces { output, until: None });
    Ok((headers, [(CONTENT_LENGTH, length)], body).into_response())
}

/// So much of a trace is shown if nobody said otherwise.
const TAIL_BYTES: u64 = 64 << 10;

/// Measure the way to an agent and back.
#[utoipa::path(post, path = "/api/v1/agents/{name}/ping", tag = "agents", params(("name" = String, Path)),
    responses((status = 200, body = Ping), (status = 404, body = api::Problem),
        (status = 503, description = "it is not connected", body = api::Problem)))]
pub(super) async fn ping(State(http): State<Http>, Part(name): Part<String>) -> Result<Json<Ping>, Problem> {
    http.app.handle.agent(&name).await?;
    let round_trip_ms = http.app.agents.ping(&name).await?.as_secs_f64() * 1000.0;
    Ok(Json(Ping { name, round_trip_ms }))
}

async fn load(http: &Http, name: &str) -> Result<Agent, Problem> {
    let view = http.app.handle.agent(name).await?;
    Ok(show::agent(&view, http.app.agents.live(name).as_ref()))
}

fn new_agent(request: AgentAdd) -> Result<NewAgent, Problem> {
    let dial = match (request.host, request.port, request.dials_in) {
        (Some(host), port, false) if is_host(&host) => {
            Some(Dial { host, port: port.unwrap_or(PORT_DEFAULT) })
        }
        (Some(host), _, false) => {
            return Err(Problem::invalid(format!("\"{host}\" is not the name or address of a host")));
        }
        (None, None, true) => None,
        (None, _, false) => {
            return Err(Problem::invalid(
                "give \"host\" (and \"port\") of an agent that the server dials, or \"dials_in\": true",
            ));
        }
        (Some(_), _, true) | (None, Some(_), true) => {
            return Err(Problem::invalid("an agent that dials in has no \"host\" and no \"port\""));
        }
    };
    if dial.as_ref().is_some_and(|dial| dial.port == 0) {
        return Err(Problem::invalid("the port must be 1 to 65535"));
    }
    Ok(NewAgent {
        name: request.name,
        slots: request.slots.unwrap_or(SLOTS_DEFAULT),
        dial,
        secret: read_secret(request.secret, request.secret_hex)?,
        queues: request.queues.unwrap_or_else(|| vec!["default".to_owned()]),
    })
}

/// A host name or an address, as far as its looks tell (RFC 1123: at most 253 characters).
fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:%[]".contains(&b))
}

fn read_secret(text: Option<String>, hex: Option<String>) -> Result<Vec<u8>, Problem> {
    let bytes = match (text, hex) {
        (Some(text), None) => text.strip_suffix('\n').unwrap_or(&text).as_bytes().to_vec(),
        (None, Some(hex)) => read_hex(&hex)
            .ok_or_else(|| Problem::invalid("\"secret_hex\" is not made of hexadecimal digits"))?,
        (None, None) | (Some(_), Some(_)) => {
            return Err(Problem::invalid("give \"secret\" or \"secret_hex\", one of them"));
        }
    };
    // The same rule as where it is used; only whether it passes matters here.
    match link::Secret::from_bytes(bytes.clone()) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(Problem::invalid(error.to_string())),
    }
}

fn read_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let [high, low] = pair else { return None };
        let value = (*high as char).to_digit(16)? << 4 | (*low as char).to_digit(16)?;
        u8::try_from(value).ok()
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_taken_as_text_or_as_digits_and_never_short() {
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(read_secret(Some(format!("{text}\n")), None).unwrap(), text.as_bytes());
        assert_eq!(read_secret(None, Some("fF".repeat(32))).unwrap(), [0xff; 32]);
        assert!(read_secret(Some("short".into()), None).is_err());
        assert!(read_secret(None, Some("f".repeat(65))).is_err());
        assert!(read_secret(None, None).is_err());
        assert!(read_secret(None, Some("é".repeat(40))).is_err());
    }

    #[test]
    fn an_agent_is_dialled_or_dials_but_not_both() {
        let add = |host: Option<&str>, port, dials_in| {
            new_agent(AgentAdd {
                name: "a".into(),
                host: host.map(Into::into),
                port,
                dials_in,
                secret: Some("x".repeat(32)),
                secret_hex: None,
                queues: None,
                slots: None,
            })
        };
        assert_eq!(add(Some("h"), None, false).unwrap().dial, Some(Dial { host: "h".into(), port: 7412 }));
        assert_eq!(add(None, None, true).unwrap().dial, None);
        for wrong in [
            add(None, None, false),
            add(Some("h"), None, true),
            add(Some("a b"), None, false),
            add(Some("h"), Some(0), false),
        ] {
            assert!(wrong.is_err());
        }
    }
}
