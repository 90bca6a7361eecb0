//! The node's own pages: server-rendered, readable without a script, nothing inline and nothing from elsewhere.
//!
//! Every text from a user or another machine goes through maud, which escapes it. A form answers with a
//! redirect to the page that shows what it did, or with the same page and a sentence about what went wrong.

mod account;
mod board;
mod browse;
mod channel;
mod home;
mod tokens;
mod update;

use axum::http::StatusCode;
use axum::response::Response;
use maud::{DOCTYPE, Markup, html};

pub(super) use account::{account, change_password};
pub(super) use board::{adopt, board, eject, identify, move_store, reset};
pub(super) use browse::browse;
pub(super) use channel::{check_channel, remove_channel, set_channel};
pub(super) use home::{claim, home, sign_in, sign_out};
pub(super) use tokens::{add_token, revoke_token, tokens};
pub(super) use update::{install_update, roll_back};

use super::answer;
use super::error::Error;
use super::route::Call;

/// The pages of the menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Home,
    Board,
    Tokens,
    Account,
    /// Not in the menu.
    Elsewhere,
}

const MENU: [(Place, &str, &str); 4] = [
    (Place::Home, "/", "Overview"),
    (Place::Board, "/board", "Box"),
    (Place::Tokens, "/tokens", "Tokens"),
    (Place::Account, "/account", "Account"),
];

/// What happened last, told on top of a page.
enum Notice {
    Nothing,
    Good(String),
    Bad(String),
}

/// What went wrong with a form, as a notice; errors that are not about its content pass on.
fn complaint(error: Error) -> (StatusCode, Notice) {
    let (status, _) = error.outcome();
    error.log();
    (status, Notice::Bad(sentence(&error.reason())))
}

/// The first letter large, a full stop at the end: reasons are written for a line of a log.
fn sentence(reason: &str) -> String {
    let mut characters = reason.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), characters.as_str())
}

/// A page inside the node's frame.
fn framed(call: &Call, place: Place, title: &str, notice: &Notice, content: &Markup) -> Markup {
    let identity = call.node().identity();
    let menu = html! {
        @if call.caller.is_known() {
            nav aria-label="Pages" {
                // A machine without a board edge has no light and no disks to show.
                @for (here, path, name) in MENU.into_iter().filter(|item| item.0 != Place::Board || call.node().board().is_there()) {
                    a href=(path) aria-current=[(here == place).then_some("page")] { (name) }
                }
                form method="post" action="/sign-out" { button.plain type="submit" { "Sign out" } }
            }
        }
    };
    let short = identity.host_name().trim_end_matches(".local");
    document(
        title,
        short,
        &menu,
        &html! {
            @match notice {
                Notice::Nothing => {}
                Notice::Good(text) => div.note.good role="status" { (text) },
                Notice::Bad(text) => div.note.bad role="alert" { (text) },
            }
            (content)
        },
    )
}

fn document(title: &str, node: &str, menu: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Refuge" }
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/assets/style.css";
                script type="module" src="/assets/page.js" {}
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.top {
                    div.wide {
                        a.brand href="/" {
                            img src="/assets/icon.svg" alt="";
                            span { "Refuge " small { (node) } }
                        }
                        (menu)
                    }
                }
                main.wide #content { (content) }
                footer.wide { "Refuge " (env!("CARGO_PKG_VERSION")) " · your data, on your own machine" }
            }
        }
    }
}

/// A refusal for somebody who looks at a page.
pub(super) fn refusal(status: StatusCode, error: &Error) -> Response {
    let is_sign_in = status == StatusCode::UNAUTHORIZED;
    let title = if is_sign_in {
        "Sign in first"
    } else {
        "This did not work"
    };
    let content = html! {
        div.card.narrow {
            h1 { (title) }
            p { (sentence(&error.reason())) }
            p { a.button.main href="/" { @if is_sign_in { "Sign in" } @else { "To the overview" } } }
        }
    };
    answer::page(status, document(title, "", &html! {}, &content))
}
