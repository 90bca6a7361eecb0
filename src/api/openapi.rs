//! `GET /api/openapi.json`: the route table as an OpenAPI 3.1 document, so that neither can say what the other
//! does not.

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{Object, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, Info, OpenApi, OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder,
};

use super::TABLE;
use super::answer;
use super::error::{Error, ErrorBody};
use super::route::{Auth, Call, Gives, Route, SchemaOf, Takes, schema_of};
use crate::node::Scope;

/// How the bearer scheme is called inside the document.
const TOKEN_SCHEME: &str = "token";

type Schemas = Vec<(String, RefOr<Schema>)>;

/// The document.
pub(super) async fn document(_call: Call) -> Result<Response, Error> {
    let json = build().to_json().expect("the document is built of strings");
    Ok(answer::text(
        StatusCode::OK,
        HeaderValue::from_static("application/json"),
        json,
    ))
}

fn build() -> OpenApi {
    let mut schemas = Schemas::new();
    let error = reference(schema_of::<ErrorBody>, &mut schemas);
    let mut paths = PathsBuilder::new();
    for route in documented() {
        let operation = operation(route, &error, &mut schemas);
        let path = route.path.replace("{*", "{");
        paths = paths.path(path, PathItem::new(method(route.method), operation));
    }
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(TOKEN_SCHEME, bearer)
        .build();
    OpenApiBuilder::new()
        .info(Info::new("Refuge", env!("CARGO_PKG_VERSION")))
        .paths(paths)
        .components(Some(components))
        .build()
}

fn operation(route: &Route, error: &RefOr<Schema>, schemas: &mut Schemas) -> OperationBuilder {
    let mut operation = OperationBuilder::new().summary(Some(route.summary));
    for status in successes(route) {
        let answer = match *status {
            "303" | "304" => ResponseBuilder::new().description("Nothing to read here"),
            _ => answer_of(route.gives, schemas),
        };
        operation = operation.response(*status, answer);
    }
    operation = operation.response(
        "default",
        ResponseBuilder::new().description("An error").content(
            "application/json",
            ContentBuilder::new().schema(Some(error.clone())).build(),
        ),
    );
    for name in names_in(route.path) {
        let text = Schema::Object(Object::with_type(Type::String));
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(text)),
        );
    }
    if let Some(content) = body_of(route.takes, schemas) {
        operation = operation.request_body(Some(content.build()));
    }
    match route.auth {
        Auth::Landing | Auth::Public | Auth::Unclaimed | Auth::Claimed => operation,
        Auth::Offered => {
            let read = SecurityRequirement::new(TOKEN_SCHEME, [Scope::Read.name()]);
            operation.security(read).security(SecurityRequirement::default())
        }
        Auth::SignedIn => operation.security(SecurityRequirement::new(TOKEN_SCHEME, Vec::<&str>::new())),
        Auth::Scope(scope) => operation.security(SecurityRequirement::new(TOKEN_SCHEME, [scope.name()])),
    }
}

/// The statuses a route may answer with where it does not fail.
fn successes(route: &Route) -> &'static [&'static str] {
    match (route.gives, route.takes) {
        // Pages answer a form with the next page, or say where it is.
        (_, Takes::Form) => &["200", "201", "303"],
        (Gives::Nothing, _) if route.method == "HEAD" => &["200"],
        (Gives::Nothing, _) if route.method == "POST" => &["201", "204"],
        (Gives::Nothing, _) => &["204"],
        (Gives::Json(_), _) if route.method == "GET" => &["200", "304"],
        (Gives::Json(_), _) => &["200", "201"],
        (Gives::Bytes, _) => &["200", "206", "304"],
        (Gives::Text(_), Takes::CouchJson | Takes::CouchDocument | Takes::CouchAttachment) => {
            &["200", "201", "202"]
        }
        (Gives::Text(_), _) => &["200", "304"],
    }
}

fn answer_of(gives: Gives, schemas: &mut Schemas) -> ResponseBuilder {
    let response = ResponseBuilder::new().description("What was asked for");
    match gives {
        Gives::Nothing => response,
        Gives::Bytes => response.content("application/octet-stream", bytes()),
        Gives::Json(schema) => response.content("application/json", typed(schema, schemas)),
        Gives::Text(media_type) => response.content(media_type, bytes()),
    }
}

fn body_of(takes: Takes, schemas: &mut Schemas) -> Option<RequestBodyBuilder> {
    let body = RequestBodyBuilder::new();
    match takes {
        Takes::Nothing => None,
        Takes::Bytes => Some(body.content("application/octet-stream", bytes())),
        Takes::Json(schema) => Some(
            body.content("application/json", typed(schema, schemas))
                .required(Some(Required::True)),
        ),
        Takes::TusPiece | Takes::TusCreation => {
            Some(body.content("application/offset+octet-stream", bytes()))
        }
        Takes::Form => Some(body.content("application/x-www-form-urlencoded", bytes())),
        Takes::CouchNothing => None,
        Takes::CouchJson => Some(body.content("application/json", bytes())),
        Takes::CouchDocument => Some(
            body.content("application/json", bytes())
                .content("multipart/related", bytes()),
        ),
        Takes::CouchAttachment => Some(body.content("*/*", bytes())),
    }
}

fn bytes() -> utoipa::openapi::Content {
    ContentBuilder::new().build()
}

fn typed(schema: SchemaOf, schemas: &mut Schemas) -> utoipa::openapi::Content {
    ContentBuilder::new()
        .schema(Some(reference(schema, schemas)))
        .build()
}

fn reference(schema: SchemaOf, schemas: &mut Schemas) -> RefOr<Schema> {
    Ref::from_schema_name(schema(schemas)).into()
}

/// The names between braces of a path.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| {
        part.strip_prefix('{')?
            .strip_suffix('}')
            .map(|name| name.trim_start_matches('*'))
    })
}

/// OpenAPI has no word for COPY, which CouchDB has beside the methods of HTTP.
fn documented() -> impl Iterator<Item = &'static Route> {
    TABLE.iter().filter(|route| route.method != "COPY")
}

fn method(method: &str) -> HttpMethod {
    match method {
        "GET" => HttpMethod::Get,
        "PUT" => HttpMethod::Put,
        "POST" => HttpMethod::Post,
        "DELETE" => HttpMethod::Delete,
        "PATCH" => HttpMethod::Patch,
        "HEAD" => HttpMethod::Head,
        "OPTIONS" => HttpMethod::Options,
        other => unreachable!("the table has no {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let document: serde_json::Value = serde_json::from_str(&build().to_json().unwrap()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        for route in documented() {
            let path = route.path.replace("{*", "{");
            let operation = &paths[&path][route.method.to_ascii_lowercase()];
            assert_eq!(operation["summary"], route.summary, "{} {path}", route.method);
            let is_open = matches!(
                route.auth,
                Auth::Landing | Auth::Public | Auth::Unclaimed | Auth::Claimed
            );
            assert_eq!(operation.get("security").is_none(), is_open, "{path}");
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.contains_key("default") && answers.len() > 1, "{path}");
        }
        let operations: usize = paths.values().map(|item| item.as_object().unwrap().len()).sum();
        assert_eq!(operations, documented().count());
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let text = build().to_json().unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
