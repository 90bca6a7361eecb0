//! The rows of the security table that concern the HTTP surface, each as a test over a served node.
//!
//! The routes are those of the OpenAPI document, which a unit test compares with the route table.

mod access;
mod bodies;
mod browsers;
mod lines;
mod paths;
mod secrets;

use crate::served::{Ask, Served};

/// A route of the served node.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) method: String,
    /// With its parameters filled in.
    pub(super) target: String,
    /// As the document has it.
    pub(super) path: String,
    /// Whether the document says that anybody may use it.
    pub(super) is_public: bool,
}

impl Route {
    pub(super) fn ask(&self, served: &Served) -> Ask {
        served.ask(&self.method, &self.target)
    }

    pub(super) fn changes_state(&self) -> bool {
        !["GET", "HEAD", "OPTIONS"].contains(&self.method.as_str())
    }
}

/// Every route there is.
pub(super) fn routes(served: &Served) -> Vec<Route> {
    let token = served.owner_token();
    let document = served
        .ask("GET", "/api/openapi.json")
        .bearer(&token)
        .send()
        .json();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            routes.push(Route {
                method: method.to_ascii_uppercase(),
                target: path
                    .replace("{id}", &format!("blake3;{}", "0".repeat(64)))
                    .replace("{store}", "main")
                    .replace("{name}", "documents")
                    .replace("{db}", "notes")
                    .replace("{doc}", "one")
                    .replace("{design}", "one")
                    .replace("{local}", "one")
                    .replace("{attachment}", "one"),
                path: path.clone(),
                is_public: operation.get("security").is_none(),
            });
        }
    }
    assert!(routes.len() > 40, "{}", routes.len());
    routes
}
