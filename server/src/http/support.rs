//! The support bundle: everything that is known of this server and its agents, in one archive.

use super::extract::OptionalBody;
use super::operate::{check_of, operation as shown_operation, shown as shown_backup};
use super::problem::Problem;
use super::{Http, audit, events, server, show};
use crate::bundle::{Bundle, Found, Scrub};
use crate::core::CoreError;
use crate::db::{AuditFilter, Database, DbError, Walk};
use crate::operation::{self, Kind, NotBegun, Operation, Outcome};
use api::{SUPPORT_LINES_MAX, SupportBundleMake};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use scheduler::EventFilter;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The newest events and audit entries, if nobody said otherwise.
const LINES: u32 = 2_000;
/// So long has the core for an answer.
const CORE_MAX: Duration = Duration::from_secs(5);
/// So long is waited for a check of the database, whose result is a part.
const CHECK_MAX: Duration = Duration::from_secs(30);
/// So many agents and queues are told of.
const NAMES_MAX: usize = 20_000;

/// Make a support bundle: versions, settings without secrets, status, metrics, agents, queues, counts of jobs, the newest events, audit entries and
/// lines of the trace, a check of the database, facts of the host, and an index that says what is in it and what was left out. No token, hash,
/// secret, command, variable, parameter or output is in it.
#[utoipa::path(post, path = "/api/v1/server/support-bundle", tag = "server", request_body = Option<SupportBundleMake>,
    responses((status = 200, description = "the archive (tar, gzip), at most 64 MiB uncompressed", content_type = "application/gzip", body = Vec<u8>),
        (status = 409, description = "another one is being made", body = api::Problem),
        (status = 422, body = api::Problem)))]
pub(super) async fn make(
    State(http): State<Http>,
    OptionalBody(request): OptionalBody<SupportBundleMake>,
) -> Result<impl IntoResponse, Problem> {
    for (what, count) in [("events", request.events), ("audit", request.audit)] {
        if count.is_some_and(|count| count > SUPPORT_LINES_MAX) {
            return Err(Problem::invalid(format!("\"{what}\" must be at most {SUPPORT_LINES_MAX}")));
        }
    }
    let Ok(_one) = http.bundles.clone().try_acquire_owned() else {
        let detail = "a support bundle is being made already; try again in a moment";
        return Err(Problem::new(StatusCode::CONFLICT, "busy", "One of its kind goes on", detail));
    };
    let now_ms = os::clock::wall_ms();
    let stamp = api::Time { ms: now_ms }.to_seconds().replace([' ', ':'], "-");
    let folder = format!("lastword-{}-{stamp}", http.app.name);
    let (archive, parts) = gather(&http, &request, &folder, now_ms).await?;
    note(&http, json!({"bytes": archive.len(), "parts": parts})).await;
    let headers = [
        (CONTENT_TYPE, "application/gzip".to_owned()),
        (CACHE_CONTROL, "no-store".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{folder}.tar.gz\"")),
        (HeaderName::from_static("x-parts"), parts.to_string()),
    ];
    Ok((headers, archive))
}

/// Who took a bundle is kept, if anything can be kept at the moment.
async fn note(http: &Http, detail: Value) {
    let detail = detail.as_object().cloned().unwrap_or_else(Map::new);
    let note = http.app.handle.note("server.support-bundle", "server", detail, None);
    match tokio::time::timeout(CORE_MAX, note).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!("a support bundle could not be noted in the audit: {e}"),
        Err(_) => {
            tracing::warn!("a support bundle could not be noted in the audit: the core does not answer")
        }
    }
}

async fn gather(
    http: &Http,
    request: &SupportBundleMake,
    folder: &str,
    now_ms: i64,
) -> Result<(Vec<u8>, usize), Problem> {
    let checking = request.check.unwrap_or(true).then(|| begin_check(http));
    let mut bundle = Bundle::new(scrub(http).await?);
    of_server(http, &mut bundle).await;
    of_core(http, &mut bundle).await;
    of_record(http, request, &mut bundle).await;
    of_host(http, &mut bundle).await;
    match checking {
        Some(checking) => {
            bundle.json("check.json", "what a check of the database found", checked(checking).await)
        }
        None => bundle.leave_out("check.json", "nobody asked for it"),
    }
    let head = format!(
        "Made by central-server {} \"{}\" at {} UTC.",
        env!("CARGO_PKG_VERSION"),
        http.app.name,
        api::Time { ms: now_ms }.to_seconds()
    );
    let (folder, parts) = (folder.to_owned(), bundle.len());
    let packed = tokio::task::spawn_blocking(move || bundle.pack(&folder, &head, now_ms)).await;
    let archive = packed.map_err(|_| Problem::stopping())?.map_err(|e| {
        let title = "The bundle cannot be packed";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bundle", title, e.to_string())
    })?;
    Ok((archive, parts))
}

/// What is to be taken out of everything. Without it nothing is told.
async fn scrub(http: &Http) -> Result<Scrub, Problem> {
    let place = http.app.place.clone();
    http.read(move |db| {
        let mut secrets: Vec<String> = place.admin_token().into_iter().collect();
        for secret in db.secrets()?.into_iter().flat_map(|of_agent| of_agent.secrets) {
            secrets.push(secret.iter().map(|byte| format!("{byte:02x}")).collect());
            secrets.push(secret.iter().map(|byte| format!("{byte:02X}")).collect());
            secrets.extend(String::from_utf8(secret));
        }
        secrets.extend(db.tokens()?.into_iter().map(|token| token.hash));
        Ok(Scrub::new(secrets))
    })
    .await
}

/// What the server says of itself.
async fn of_server(http: &Http, bundle: &mut Bundle) {
    let status = server::status(State(http.clone())).await;
    bundle.json(
        "status.json",
        "as `lastword server status`",
        status.map(|status| status.0).map_err(|p| p.detail()),
    );
    let (code, ready) = server::ready(State(http.clone())).await;
    let ready = json!({"status": code.as_u16(), "answer": ready.0});
    bundle.json("readyz.json", "the answer of /readyz", Ok(ready));
    bundle.text("metrics.txt", "the answer of /metrics", Ok(server::text(http).into_bytes()));
    bundle.json(
        "config.json",
        "the settings with their defaults, as the server was started with them",
        Ok(http.app.place.settings()),
    );
}

/// What the core knows of agents and queues.
async fn of_core(http: &Http, bundle: &mut Bundle) {
    let agents = in_time(http.app.handle.agents()).await.map(|views| {
        let live = |name: &str| http.app.agents.live(name);
        views.iter().take(NAMES_MAX).map(|view| show::agent(view, live(&view.record.name).as_ref())).collect()
    });
    let agents: Found<Vec<api::Agent>> = agents;
    let recovery = in_time(http.app.handle.recovery()).await;
    let recovery =
        recovery.map(|view| view.map(|view| json!({"untold": view.untold, "kept_back": view.kept_back})));
    let software = agents.clone().map(|agents| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for agent in agents {
            let (software, protocol) = (agent.software.unwrap_or_default(), agent.protocol.map(u64::from));
            *counts.entry(format!("{software}, protocol {}", json!(protocol))).or_default() += 1;
        }
        json!({"central-server": env!("CARGO_PKG_VERSION"), "agents": counts})
    });
    bundle.json("versions.json", "versions of the server, and how many agents have which", software);
    bundle.lines("agents.jsonl", "the agents, as `lastword agent show`", agents);
    let queues = in_time(http.app.handle.queues()).await;
    let queues = queues.map(|views| views.iter().take(NAMES_MAX).map(show::queue).collect());
    bundle.lines::<api::Queue>("queues.jsonl", "the queues, as `lastword queue show`", queues);
    bundle.json("recovery.json", "what a restore has left to do; null: nothing", recovery);
    bundle.json(
        "jobs.json",
        "how many jobs there are of each status",
        Ok(show::counts(&http.app.handle.counts())),
    );
}

/// What the record holds.
async fn of_record(http: &Http, request: &SupportBundleMake, bundle: &mut Bundle) {
    let count = |wanted: Option<u32>| wanted.unwrap_or(LINES) as usize;
    let limit = count(request.events);
    let newest = |db: &dyn Database, from, left| db.events(&EventFilter::default(), Walk::Below(from), left);
    let found = read(http, move |db| walk(limit, |from, left| newest(db, from, left))).await;
    let found = found.map(|events| events.iter().map(events::show).collect());
    bundle.lines::<api::Event>("events.jsonl", "the newest events, the newest first", found);
    let limit = count(request.audit);
    let newest = |db: &dyn Database, from, left| db.audit(&AuditFilter::default(), Walk::Below(from), left);
    let found = read(http, move |db| walk(limit, |from, left| newest(db, from, left))).await;
    let found = found.map(|entries| entries.into_iter().map(audit::show).collect());
    bundle.lines::<api::Audit>("audit.jsonl", "the newest audit entries, the newest first", found);
    let users = http.app.tokens.list().into_iter().map(|token| {
        json!({"id": token.id, "name": token.name, "user": token.user, "role": token.role, "created_at_ms": token.created_at_ms,
            "expires_at_ms": token.expires_at_ms, "revoked_at_ms": token.revoked_at_ms, "used_at_ms": token.used_at_ms})
    });
    bundle.lines(
        "tokens.jsonl",
        "which tokens there are, and what they may do; not what opens",
        Ok(users.collect()),
    );
    let identity = http.app.db.identity();
    let contents = read(http, |db| Ok((db.schema()?, db.ancestors()?, db.strays()?))).await;
    let contents = contents.map(|(schema, ancestors, strays)| {
        let hex = |id: &[u8; 16]| crate::backup::hex(id);
        json!({"id": hex(&identity.database_id), "epoch": identity.epoch, "commit": http.app.db.commit_number(), "schema": schema,
            "restored_from": ancestors.iter().map(hex).collect::<Vec<_>>(), "strays": strays})
    });
    bundle.json("database.json", "which database it is, and the version of its tables", contents);
    let operations = http.app.operations.list().into_iter().map(shown_operation).collect();
    bundle.lines::<api::Operation>("operations.jsonl", "backups and checks since the start", Ok(operations));
    let backups = std::sync::Arc::clone(&http.app.backups);
    let backups = blocking(move || backups.list().map_err(|e| format!("{e:#}"))).await;
    let backups = backups.map(|found| found.into_iter().map(shown_backup).collect());
    bundle.lines::<api::Backup>("backups.jsonl", "the complete backups of the usual folder", backups);
}

async fn of_host(http: &Http, bundle: &mut Bundle) {
    let place = http.app.place.clone();
    let host = blocking(move || Ok(place.host())).await;
    bundle.json("host.json", "kernel, memory, limits, room on disks", host);
    let place = http.app.place.clone();
    let trace = blocking(move || place.trace().map_err(|e| format!("the trace cannot be read: {e}"))).await;
    bundle.text("trace/central-server.log", "the newest lines of the server's trace", trace);
}

/// A check that was begun, or the one that goes on.
fn begin_check(http: &Http) -> Found<tokio::sync::watch::Receiver<Operation>> {
    let db = std::sync::Arc::clone(&http.app.db);
    let work = move |tell: operation::Tell<'_>| Ok(Outcome::Checked(db.check(tell)?));
    match http.app.operations.begin((Kind::Check, "support-bundle", None), work, |_| async {}) {
        Ok(begun) => Ok(begun.state),
        Err(NotBegun::Busy { id, .. }) => {
            http.app.operations.find(&id).ok_or_else(|| "it is over by now".to_owned())
        }
        Err(e @ NotBegun::KeyReused(_)) => Err(e.to_string()),
    }
}

async fn checked(begun: Found<tokio::sync::watch::Receiver<Operation>>) -> Found<api::Check> {
    let over = operation::wait(&mut begun?, CHECK_MAX).await;
    match over.outcome {
        Some(Outcome::Checked(checked)) => Ok(check_of(checked)),
        Some(Outcome::Failed(why)) => Err(why),
        Some(Outcome::Made(_)) | None => Err(format!(
            "it is not over after {} s; `lastword server wait {}` shows what it finds",
            CHECK_MAX.as_secs(),
            over.id
        )),
    }
}

/// The newest of a journal, as many as are wanted.
fn walk<T>(
    limit: usize,
    read: impl Fn(Option<u64>, usize) -> Result<crate::db::Piece<T>, DbError>,
) -> Result<Vec<T>, DbError> {
    let (mut items, mut from) = (Vec::new(), None);
    while items.len() < limit {
        let piece = read(from, limit - items.len())?;
        items.extend(piece.items);
        from = match piece.next {
            Some(next) => Some(next),
            None => break,
        };
    }
    Ok(items)
}

/// Whatever keeps a part from being had is for the index.
async fn read<T: Send + 'static>(
    http: &Http,
    f: impl FnOnce(&dyn Database) -> Result<T, DbError> + Send + 'static,
) -> Found<T> {
    http.read(f).await.map_err(|problem| problem.detail())
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Found<T> + Send + 'static) -> Found<T> {
    tokio::task::spawn_blocking(f).await.unwrap_or_else(|e| Err(e.to_string()))
}

async fn in_time<T>(answer: impl Future<Output = Result<T, CoreError>>) -> Found<T> {
    match tokio::time::timeout(CORE_MAX, answer).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err("the core does not answer".to_owned()),
    }
}
