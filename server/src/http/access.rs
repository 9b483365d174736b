//! Users and tokens.

use super::Http;
use super::extract::{Body, Params, Part};
use super::page::{Page, check_limit};
use super::problem::Problem;
use crate::auth::{self, Role};
use crate::core::AccessInput;
use crate::db::{TokenRecord, UserRecord};
use api::{Token, TokenList, TokenMade, TokenNew, User, UserAdd, UserList};
use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderName, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

/// Which tokens.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Also those that are revoked or expired.
    #[serde(default)]
    all: bool,
    /// Only those of this user.
    user: Option<String>,
    /// At most this many, 1 to 1000; all if absent.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Whether it is to be done in any case.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Force {
    /// Even if no token with the role admin is left.
    #[serde(default)]
    force: bool,
}

/// List the tokens, by name. What opens is never shown.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", operation_id = "list", params(Which),
    responses((status = 200, body = TokenList), (status = 400, body = api::Problem)))]
pub(super) async fn tokens(
    State(http): State<Http>,
    Params(which): Params<Which>,
) -> Result<Json<TokenList>, Problem> {
    let now_ms = os::clock::wall_ms();
    let users = http.app.tokens.users();
    let wanted = |token: &TokenRecord| {
        (which.all || token.is_valid(now_ms)) && which.user.as_ref().is_none_or(|user| *user == token.user)
    };
    let limit = which.limit.map_or(Ok(usize::MAX), |limit| check_limit(Some(limit)))?;
    // A revoked token may have the name of a valid one: the identifier makes the place unique.
    let place = |token: &TokenRecord| format!("{} {}", token.name, token.id);
    let behind = |token: &TokenRecord| which.cursor.as_ref().is_none_or(|cursor| place(token) > *cursor);
    let mut all = http.app.tokens.list();
    all.sort_by_key(place);
    let mut found: Vec<_> = all.into_iter().filter(|token| wanted(token) && behind(token)).collect();
    let has_next = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| has_next).map(place);
    let items = found.iter().map(|token| show(token, &users, now_ms)).collect();
    Ok(Json(TokenList { items, next_cursor }))
}

/// Make a token. The answer is the only place where it is ever shown.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", operation_id = "new", request_body = TokenNew,
    responses((status = 201, body = TokenMade), (status = 404, description = "there is no such user", body = api::Problem),
        (status = 409, description = "the name is taken, or the user is disabled", body = api::Problem),
        (status = 422, body = api::Problem)))]
pub(super) async fn new_token(
    State(http): State<Http>,
    Body(request): Body<TokenNew>,
) -> Result<(StatusCode, [(HeaderName, String); 2], Json<TokenMade>), Problem> {
    let role = Role::of_name(&request.role).ok_or_else(|| {
        Problem::invalid(format!("\"{}\" is no role; write viewer, operator or admin", request.role))
    })?;
    let now_ms = os::clock::wall_ms();
    let expires_at_ms = request.expires.map(|span| now_ms.saturating_add_unsigned(span.ms));
    if let Some(named) = &request.user {
        find(&http, named)?; // a name with a typing error would be another person's
    }
    let user = request.user.unwrap_or_else(|| request.name.clone());
    let make = move || auth::new_record(&request.name, &user, role, now_ms, expires_at_ms);
    let made = tokio::task::spawn_blocking(make).await.map_err(|_| Problem::stopping())?;
    let (record, secret) = made.map_err(|e| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "No token can be made", e.to_string())
    })?;
    http.app.handle.access(AccessInput::NewToken(record.clone())).await?;
    let users = http.app.tokens.users();
    if !http.app.tokens.list().iter().any(|token| token.id == record.id) {
        let detail = "an earlier request with this idempotency key made the token, which is shown only once; revoke that one and make another";
        return Err(Problem::new(StatusCode::CONFLICT, "shown-once", "The token was made before", detail));
    }
    let headers =
        [(LOCATION, format!("/api/v1/tokens/{}", record.id)), (CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::CREATED, headers, Json(TokenMade { secret, token: show(&record, &users, now_ms) })))
}

/// Revoke a token: it opens nothing any more, from now on.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path), Force),
    responses((status = 204, description = "it is revoked"), (status = 404, body = api::Problem),
        (status = 409, description = "it is revoked already, or the last one with the role admin", body = api::Problem)))]
pub(super) async fn revoke(
    State(http): State<Http>,
    Part(id): Part<String>,
    Params(params): Params<Force>,
) -> Result<StatusCode, Problem> {
    http.app.handle.access(AccessInput::RevokeToken { id, force: params.force }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the users, by name.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", operation_id = "list", params(Page),
    responses((status = 200, body = UserList), (status = 400, body = api::Problem)))]
pub(super) async fn users(
    State(http): State<Http>,
    Params(page): Params<Page>,
) -> Result<Json<UserList>, Problem> {
    let (users, next_cursor) = page.of_names(http.app.tokens.users(), |user| &user.name)?;
    let items = users.iter().map(|user| show_user(&http, user)).collect();
    Ok(Json(UserList { items, next_cursor }))
}

/// Make a user.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", operation_id = "add", request_body = UserAdd,
    responses((status = 201, body = User), (status = 409, description = "the name is taken", body = api::Problem),
        (status = 422, body = api::Problem)))]
pub(super) async fn add_user(
    State(http): State<Http>,
    Body(request): Body<UserAdd>,
) -> Result<(StatusCode, Json<User>), Problem> {
    http.app.handle.access(AccessInput::AddUser { name: request.name.clone() }).await?;
    Ok((StatusCode::CREATED, load(&http, request.name)?))
}

/// Remove a user. All of its tokens are revoked.
#[utoipa::path(delete, path = "/api/v1/users/{name}", tag = "users", operation_id = "remove", params(("name" = String, Path), Force),
    responses((status = 204, description = "it is removed"), (status = 404, body = api::Problem),
        (status = 409, description = "no admin would be left", body = api::Problem)))]
pub(super) async fn remove_user(
    State(http): State<Http>,
    Part(name): Part<String>,
    Params(params): Params<Force>,
) -> Result<StatusCode, Problem> {
    http.app.handle.access(AccessInput::RemoveUser { name, force: params.force }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Disable a user: none of its tokens opens anything, from now on, until it is enabled again.
#[utoipa::path(post, path = "/api/v1/users/{name}/disable", tag = "users", operation_id = "disable", params(("name" = String, Path), Force),
    responses((status = 200, body = User), (status = 404, body = api::Problem),
        (status = 409, description = "no admin would be left", body = api::Problem)))]
pub(super) async fn disable_user(
    State(http): State<Http>,
    Part(name): Part<String>,
    Params(params): Params<Force>,
) -> Result<Json<User>, Problem> {
    let input = AccessInput::DisableUser { name: name.clone(), disabled: true, force: params.force };
    http.app.handle.access(input).await?;
    load(&http, name)
}

/// Enable a user: its tokens open again what they did.
#[utoipa::path(post, path = "/api/v1/users/{name}/enable", tag = "users", operation_id = "enable", params(("name" = String, Path)),
    responses((status = 200, body = User), (status = 404, body = api::Problem)))]
pub(super) async fn enable_user(
    State(http): State<Http>,
    Part(name): Part<String>,
) -> Result<Json<User>, Problem> {
    let input = AccessInput::DisableUser { name: name.clone(), disabled: false, force: false };
    http.app.handle.access(input).await?;
    load(&http, name)
}

fn load(http: &Http, name: String) -> Result<Json<User>, Problem> {
    Ok(Json(show_user(http, &find(http, &name)?)))
}

fn find(http: &Http, name: &str) -> Result<UserRecord, Problem> {
    let user = http.app.tokens.users().into_iter().find(|user| user.name == name);
    Ok(user.ok_or_else(|| crate::core::AccessRefusal::NoSuchUser(name.to_owned()))?)
}

fn show_user(http: &Http, user: &UserRecord) -> User {
    let now_ms = os::clock::wall_ms();
    let is_valid = |token: &TokenRecord| token.user == user.name && token.is_valid(now_ms);
    User {
        name: user.name.clone(),
        disabled: user.disabled,
        created_at: user.created_at_ms.into(),
        tokens: http.app.tokens.list().iter().filter(|token| is_valid(token)).count() as u64,
    }
}

fn show(token: &TokenRecord, users: &[UserRecord], now_ms: i64) -> Token {
    let enabled = users.iter().any(|user| user.name == token.user && !user.disabled);
    let state = match (token.revoked_at_ms, token.is_valid(now_ms), enabled) {
        (Some(_), _, _) => "revoked",
        (None, false, _) => "expired",
        (None, true, false) => "disabled",
        (None, true, true) => "valid",
    };
    Token {
        id: token.id.clone(),
        name: token.name.clone(),
        user: token.user.clone(),
        role: token.role.clone(),
        state: state.to_owned(),
        created_at: token.created_at_ms.into(),
        expires_at: token.expires_at_ms.map(Into::into),
        revoked_at: token.revoked_at_ms.map(Into::into),
        used_at: token.used_at_ms.map(Into::into),
    }
}
