//! The page of app tokens: list, make, revoke.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::{Notice, Place, complaint, framed};
use crate::api::answer;
use crate::api::body::Form;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::{stamp, tokens as resource};
use crate::node::{NewToken, Scope};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What each scope is for, in the words of the form.
fn meaning(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read: see and download everything",
        Scope::Write => "write: upload, delete, back up",
        Scope::Ingest => "ingest: upload, and nothing else",
        Scope::Metrics => "metrics: numbers for monitoring",
        Scope::Admin => "admin: everything, with stores and accounts",
    }
}

/// The page.
pub(in crate::api) async fn tokens(call: Call) -> Result<Response, Error> {
    let page = page(&call, &Notice::Nothing, None)?;
    Ok(answer::page(StatusCode::OK, page))
}

/// The form that makes a token. It answers with the page itself: the token is shown this once and must not
/// stand in an address.
pub(in crate::api) async fn add_token(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let (status, page) = match make(&call, &form).await {
        Ok(new) => (StatusCode::CREATED, page(&call, &Notice::Nothing, Some(&new))?),
        Err(error) => {
            let (status, notice) = complaint(error);
            (status, page(&call, &notice, None)?)
        }
    };
    Ok(answer::page(status, page))
}

async fn make(call: &Call, form: &Form) -> Result<NewToken, Error> {
    let scopes: Vec<&str> = Scope::ALL
        .into_iter()
        .map(|(_, name)| name)
        .filter(|name| form.field(name).is_some())
        .collect();
    if scopes.is_empty() {
        return Err(Error::malformed("scopes", "choose at least one"));
    }
    let days: Option<u32> = form.parsed("days")?;
    let label = form.required("label")?.to_owned();
    resource::make(call, label, &scopes, days.map(|days| DAY * days)).await
}

/// The buttons that revoke.
pub(in crate::api) async fn revoke_token(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let revoked = match form.required("id") {
        Ok(id) => resource::revoke_by_id(&call, id).await,
        Err(error) => Err(error),
    };
    match revoked {
        Ok(()) => Ok(answer::see_other("/tokens")),
        Err(error) => {
            let (status, notice) = complaint(error);
            Ok(answer::page(status, page(&call, &notice, None)?))
        }
    }
}

fn page(call: &Call, notice: &Notice, new: Option<&NewToken>) -> Result<Markup, Error> {
    let content = html! {
        @if let Some(new) = new {
            section.card aria-labelledby="new" {
                h2 #new { "Your new token" }
                p { code { (new.secret.expose()) } }
                p.quiet { "Copy it now: it is not shown again. Programs send it as a bearer token, or as the password \
                    beside any user name." }
            }
        }
        (list(call)?)
        (form(call)?)
    };
    Ok(framed(call, Place::Tokens, "Tokens", notice, &content))
}

fn list(call: &Call) -> Result<Markup, Error> {
    let tokens = resource::visible(call)?;
    Ok(html! {
        section.card aria-labelledby="tokens" {
            h1 #tokens { "App tokens" }
            @if tokens.is_empty() {
                p { "No program has a token yet." }
            } @else {
                table {
                    caption { "What programs sign in with. A revoked token stops working at once." }
                    thead { tr {
                        th scope="col" { "For" }
                        th scope="col" { "May" }
                        th.optional scope="col" { "Account" }
                        th.optional scope="col" { "Last used (UTC)" }
                        th.optional scope="col" { "Ends" }
                        th scope="col" { span.quiet { "" } }
                    } }
                    tbody {
                        @for token in &tokens {
                            tr {
                                td { (token.label) }
                                td { (resource::scope_names(token.scopes).join(", ")) }
                                td.optional { (token.account) }
                                td.optional { (token.used.map_or_else(|| "never".to_owned(), stamp::for_people)) }
                                td.optional { (token.expires.map_or_else(|| "never".to_owned(), stamp::for_people)) }
                                td.number {
                                    form method="post" action="/tokens/revoke" {
                                        input type="hidden" name="id" value=(token.id);
                                        button type="submit" aria-label=(format!("Revoke {}", token.label))
                                            data-ask=(format!("Revoke the token {}? Programs that use it stop working.", token.label)) {
                                            "Revoke"
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    })
}

fn form(call: &Call) -> Result<Markup, Error> {
    let principal = call.caller.principal()?;
    let offered = [
        Scope::Read,
        Scope::Write,
        Scope::Ingest,
        Scope::Metrics,
        Scope::Admin,
    ];
    Ok(html! {
        section.card aria-labelledby="make" {
            h2 #make { "Make a token" }
            form method="post" action="/tokens" {
                div.field {
                    label for="label" { "What is it for?" }
                    input #label type="text" name="label" maxlength="100" placeholder="Backup of the laptop" required;
                }
                fieldset {
                    legend { "What may it do?" }
                    @for scope in offered.into_iter().filter(|scope| principal.may(*scope)) {
                        label { input type="checkbox" name=(scope.name()) value="yes"; span { (meaning(scope)) } }
                    }
                }
                div.field {
                    label for="days" { "When does it end?" }
                    select #days name="days" {
                        option value="" { "Never" }
                        option value="7" { "After a week" }
                        option value="90" { "After 90 days" }
                        option value="365" { "After a year" }
                    }
                }
                button.main type="submit" { "Make the token" }
            }
        }
    })
}
