//! Queues: create, show, attach, hold, remove.

use super::extract::{Body, Params, Part};
use super::manners::Tagged;
use super::page::Page;
use super::problem::Problem;
use super::{Http, show};
use crate::core::tag;
use api::{Attachment, Queue, QueueChange, QueueCreate, QueueList};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

/// List the queues, by name.
#[utoipa::path(get, path = "/api/v1/queues", tag = "queues", params(Page),
    responses((status = 200, body = QueueList), (status = 400, body = api::Problem)))]
pub(super) async fn list(
    State(http): State<Http>,
    Params(page): Params<Page>,
) -> Result<Json<QueueList>, Problem> {
    let (views, next_cursor) =
        page.of_names(http.ask(http.app.handle.queues()).await?, |view| &view.record.name)?;
    Ok(Json(QueueList { items: views.iter().map(show::queue).collect(), next_cursor }))
}

/// Create a queue.
#[utoipa::path(post, path = "/api/v1/queues", tag = "queues", request_body = QueueCreate,
    responses((status = 201, body = Queue), (status = 409, description = "the name is taken", body = api::Problem),
        (status = 422, body = api::Problem)))]
pub(super) async fn create(
    State(http): State<Http>,
    Body(request): Body<QueueCreate>,
) -> Result<(StatusCode, Json<Queue>), Problem> {
    let handle = &http.app.handle;
    for agent in &request.agents {
        handle.agent(agent).await.map_err(|e| Problem::from(e).in_body())?;
    }
    handle.create_queue(&request.name).await?;
    // Held before anything can be taken from it.
    if request.held {
        handle.hold_queue(&request.name, true).await?;
    }
    for agent in &request.agents {
        handle.attach(&request.name, agent).await.map_err(|e| Problem::from(e).in_body())?;
    }
    Ok((StatusCode::CREATED, load(&http, &request.name).await?))
}

/// Show a queue.
#[utoipa::path(get, path = "/api/v1/queues/{name}", tag = "queues", params(("name" = String, Path)),
    responses((status = 200, body = Queue), (status = 404, body = api::Problem)))]
pub(super) async fn show(
    State(http): State<Http>,
    Part(name): Part<String>,
) -> Result<Tagged<Queue>, Problem> {
    let view = http.ask(http.app.handle.queue(&name)).await?;
    Ok(Tagged { version: tag::of_queue(&view), body: show::queue(&view) })
}

/// Remove a queue that has no job which is not over.
#[utoipa::path(delete, path = "/api/v1/queues/{name}", tag = "queues", params(("name" = String, Path)),
    responses((status = 204, description = "it is removed"), (status = 404, body = api::Problem),
        (status = 409, description = "it has jobs", body = api::Problem)))]
pub(super) async fn remove(
    State(http): State<Http>,
    Part(name): Part<String>,
) -> Result<StatusCode, Problem> {
    http.app.handle.delete_queue(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Take nothing from a queue until it is released. What runs goes on.
#[utoipa::path(post, path = "/api/v1/queues/{name}/hold", tag = "queues", params(("name" = String, Path)),
    responses((status = 200, body = Queue), (status = 404, body = api::Problem)))]
pub(super) async fn hold(State(http): State<Http>, Part(name): Part<String>) -> Result<Json<Queue>, Problem> {
    http.app.handle.hold_queue(&name, true).await?;
    load(&http, &name).await
}

/// End the hold of a queue.
#[utoipa::path(post, path = "/api/v1/queues/{name}/release", tag = "queues", params(("name" = String, Path)),
    responses((status = 200, body = Queue), (status = 404, body = api::Problem)))]
pub(super) async fn release(
    State(http): State<Http>,
    Part(name): Part<String>,
) -> Result<Json<Queue>, Problem> {
    http.app.handle.hold_queue(&name, false).await?;
    load(&http, &name).await
}

/// Change a queue's slots and its priority.
#[utoipa::path(post, path = "/api/v1/queues/{name}/set", tag = "queues", params(("name" = String, Path)), request_body = QueueChange,
    responses((status = 200, body = Queue), (status = 404, body = api::Problem), (status = 422, body = api::Problem)))]
pub(super) async fn set(
    State(http): State<Http>,
    Part(name): Part<String>,
    Body(change): Body<QueueChange>,
) -> Result<Json<Queue>, Problem> {
    let slots = match (change.slots, change.no_slots) {
        (Some(_), true) => return Err(Problem::invalid("give \"slots\" or \"no_slots\", not both")),
        (Some(slots), false) => Some(Some(slots)),
        (None, true) => Some(None),
        (None, false) => None,
    };
    http.app.handle.set_queue(&name, slots, change.priority).await?;
    load(&http, &name).await
}

/// Let an agent serve a queue.
#[utoipa::path(post, path = "/api/v1/queues/{name}/attach", tag = "queues", params(("name" = String, Path)), request_body = Attachment,
    responses((status = 200, body = Queue), (status = 404, body = api::Problem)))]
pub(super) async fn attach(
    State(http): State<Http>,
    Part(name): Part<String>,
    Body(request): Body<Attachment>,
) -> Result<Json<Queue>, Problem> {
    http.app.handle.attach(&name, &request.agent).await?;
    load(&http, &name).await
}

/// No longer let an agent serve a queue. What it runs goes on.
#[utoipa::path(post, path = "/api/v1/queues/{name}/detach", tag = "queues", params(("name" = String, Path)), request_body = Attachment,
    responses((status = 200, body = Queue), (status = 404, body = api::Problem)))]
pub(super) async fn detach(
    State(http): State<Http>,
    Part(name): Part<String>,
    Body(request): Body<Attachment>,
) -> Result<Json<Queue>, Problem> {
    http.app.handle.detach(&name, &request.agent).await?;
    load(&http, &name).await
}

async fn load(http: &Http, name: &str) -> Result<Json<Queue>, Problem> {
    Ok(Json(show::queue(&http.ask(http.app.handle.queue(name)).await?)))
}
