//! The page of one's own account.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::{Notice, Place, complaint, framed};
use crate::api::answer;
use crate::api::body::Form;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::session;

/// The page.
pub(in crate::api) async fn account(call: Call) -> Result<Response, Error> {
    let page = page(&call, &Notice::Nothing)?;
    Ok(answer::page(StatusCode::OK, page))
}

/// The form that changes the password.
pub(in crate::api) async fn change_password(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let (status, notice) = match change(&call, &form).await {
        Ok(()) => {
            let done = "Your password was changed. All your other browsers have to sign in again.";
            (StatusCode::OK, Notice::Good(done.to_owned()))
        }
        Err(error) => complaint(error),
    };
    Ok(answer::page(status, page(&call, &notice)?))
}

async fn change(call: &Call, form: &Form) -> Result<(), Error> {
    let (old, new) = (form.required("old")?, form.required("new")?);
    if form.required("again")? != new {
        return Err(Error::malformed(
            "new password",
            "was not typed the same way twice",
        ));
    }
    session::replace_password(call, old.to_owned(), new.to_owned()).await
}

fn page(call: &Call, notice: &Notice) -> Result<Markup, Error> {
    let principal = call.caller.principal()?;
    let content = html! {
        section.card.narrow aria-labelledby="account" {
            h1 #account { (principal.account) }
            p.quiet { "Signed in as " (principal.role.name()) "." }
        }
        section.card.narrow aria-labelledby="password" {
            h2 #password { "Change your password" }
            form method="post" action="/account/password" {
                input type="hidden" name="account" value=(principal.account) autocomplete="username";
                div.field {
                    label for="old" { "The old one" }
                    input #old type="password" name="old" autocomplete="current-password" required;
                }
                div.field {
                    label for="new" { "A new one" }
                    input #new type="password" name="new" autocomplete="new-password" minlength="8"
                        aria-describedby="new-hint" required;
                    p.hint #new-hint { "At least 8 characters." }
                }
                div.field {
                    label for="again" { "The new one again" }
                    input #again type="password" name="again" autocomplete="new-password" minlength="8" required;
                }
                button.main type="submit" { "Change it" }
            }
        }
    };
    Ok(framed(call, Place::Account, "Account", notice, &content))
}
