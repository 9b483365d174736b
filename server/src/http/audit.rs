//! Who asked for what, when, from where, why, and what came of it.

use super::Http;
use super::extract::Params;
use super::page::{check_limit, read_number};
use super::problem::Problem;
use crate::db::{AuditFilter, AuditRecord, Walk};
use api::{Audit, AuditList, Time};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Not before this moment: `2026-11-22T09:00:00Z`.
    #[param(value_type = Option<String>)]
    since: Option<Time>,
    /// By this user, or with the token of this name.
    who: Option<String>,
    /// To this object: `job/1042`, `queue/nightly`, `agent/host1`, `token/…`, `user/…`.
    object: Option<String>,
    /// At most this many, 1 to 1000; 100 if absent.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// List what was asked for and what came of it, newest first, a page at a time.
#[utoipa::path(get, path = "/api/v1/audit", tag = "audit", params(Filter),
    responses((status = 200, body = AuditList), (status = 400, body = api::Problem)))]
pub(super) async fn list(
    State(http): State<Http>,
    Params(params): Params<Filter>,
) -> Result<Json<AuditList>, Problem> {
    let limit = check_limit(params.limit)?;
    let from = Walk::Below(read_number(params.cursor.as_deref())?);
    let since_ms = params.since.map(|since| since.ms);
    let filter = AuditFilter { who: params.who, object: params.object, since_ms };
    let piece = http.read(move |db| db.audit(&filter, from, limit)).await?;
    let next_cursor = piece.next.map(|next| next.to_string());
    Ok(Json(AuditList { items: piece.items.into_iter().map(show).collect(), next_cursor }))
}

pub(super) fn show(record: AuditRecord) -> Audit {
    Audit {
        number: record.number,
        at: record.at_ms.into(),
        user: record.user,
        token: record.token,
        role: record.role,
        from: record.from,
        via: record.via,
        action: record.action,
        object: record.object,
        detail: record.detail,
        reason: record.reason,
        result: if record.refusal.is_some() { "refused" } else { "done" }.to_owned(),
        refusal: record.refusal,
    }
}
