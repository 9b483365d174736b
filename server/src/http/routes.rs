//! Every address with its handler. The description at `/api/openapi.json` is made of the same list.

use super::{
    Http, access, agents, audit, describe, events, extract, files, guard, jobs, lists, operate, output,
    problem, proof, queues, server, support,
};
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::{Router, middleware};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The whole interface.
pub(super) fn router(http: Http) -> Router {
    let (router, mut description) = described().split_for_parts();
    describe::complete(&mut description);
    let description = Bytes::from(description.to_json().unwrap_or_default());
    let json = [(CONTENT_TYPE, "application/json")];
    router
        .route("/api/openapi.json", get(move || std::future::ready((json, description.clone()))))
        .fallback(problem::no_such_address)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(extract::BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(http.clone(), guard::guard))
        .with_state(http)
}

/// Every address that is described, with its description.
pub(super) fn described() -> OpenApiRouter<Http> {
    OpenApiRouter::with_openapi(describe::head())
        .routes(routes!(jobs::submit, lists::list))
        .routes(routes!(jobs::submit_batch))
        .routes(routes!(lists::counts))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::kill))
        .routes(routes!(jobs::suspend))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::hold))
        .routes(routes!(jobs::release))
        .routes(routes!(jobs::restart))
        .routes(routes!(jobs::abandon))
        .routes(routes!(jobs::why))
        .routes(routes!(proof::proof))
        .routes(routes!(output::read))
        .routes(routes!(files::list))
        .routes(routes!(files::read))
        .routes(routes!(agents::list, agents::add))
        .routes(routes!(agents::show, agents::remove))
        .routes(routes!(agents::set))
        .routes(routes!(agents::ping))
        .routes(routes!(agents::logs))
        .routes(routes!(agents::drain))
        .routes(routes!(agents::resume))
        .routes(routes!(queues::list, queues::create))
        .routes(routes!(queues::show, queues::remove))
        .routes(routes!(queues::hold))
        .routes(routes!(queues::release))
        .routes(routes!(queues::set))
        .routes(routes!(queues::attach))
        .routes(routes!(queues::detach))
        .routes(routes!(events::follow))
        .routes(routes!(events::list))
        .routes(routes!(audit::list))
        .routes(routes!(access::tokens, access::new_token))
        .routes(routes!(access::revoke))
        .routes(routes!(access::users, access::add_user))
        .routes(routes!(access::remove_user))
        .routes(routes!(access::disable_user))
        .routes(routes!(access::enable_user))
        .routes(routes!(operate::back_up, operate::list))
        .routes(routes!(operate::check))
        .routes(routes!(operate::operations))
        .routes(routes!(operate::show_operation))
        .routes(routes!(operate::end_recovery))
        .routes(routes!(support::make))
        .routes(routes!(server::status))
        .routes(routes!(server::alive))
        .routes(routes!(server::ready))
        .routes(routes!(server::figures))
}
