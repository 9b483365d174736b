//! What the OpenAPI description says of every address alike, so that no handler has to.

use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr};

/// How errors are sent.
const PROBLEM: &str = "application/problem+json";

/// The title and the means of access.
pub(super) fn head() -> OpenApi {
    let about = "Runs jobs on agents and tells how each of them ended. Everything below /api/ needs a bearer token; errors are \
        application/problem+json (RFC 9457). Texts are UTF-8, durations are written 90s, 1h30m or 500ms, times are RFC 3339 in UTC.";
    let info = InfoBuilder::new()
        .title("Lastword")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about))
        .build();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new().security_scheme("bearer", bearer).build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new("bearer", Vec::<String>::new())]))
        .build()
}

/// Makes the names of the operations unique, adds the refusals that any request can meet, gives errors their content type.
pub(super) fn complete(description: &mut OpenApi) {
    for (path, item) in &mut description.paths.paths {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            complete_one(path, operation);
        }
    }
}

fn complete_one(path: &str, operation: &mut Operation) {
    if let (Some(tag), Some(name)) = (operation.tags.iter().flatten().next(), &operation.operation_id) {
        operation.operation_id = Some(format!("{tag}_{name}"));
    }
    let responses = &mut operation.responses.responses;
    if path.starts_with("/api/") {
        for (status, meaning) in [("401", "the token was refused"), ("403", "the token's role is not enough")]
        {
            responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(problem(meaning)));
        }
    } else {
        operation.security = Some(Vec::new());
    }
    for (status, response) in responses {
        if let RefOr::T(response) = response
            && (status.starts_with('4') || status.starts_with('5') && path.starts_with("/api/"))
        {
            let meaning =
                if response.description.is_empty() { meaning(status) } else { &response.description };
            *response = problem(meaning);
        } else if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            response.description = meaning(status).to_owned();
        }
    }
}

fn problem(meaning: &str) -> Response {
    let schema = Ref::from_schema_name("Problem");
    let mut response = Response::new(meaning);
    response.content.insert(PROBLEM.to_owned(), ContentBuilder::new().schema(Some(schema)).build());
    response
}

fn meaning(status: &str) -> &'static str {
    match status {
        "400" => "the request cannot be read",
        "404" => "there is no such thing",
        "409" => "it cannot be done as things stand",
        "422" => "the request makes no sense",
        "503" => "it cannot be done at the moment; try again",
        _ => "done",
    }
}
