//! The system of a box on its first page: what runs, what is being done, what came of the last update.

use axum::response::Response;
use maud::{Markup, html};

use super::{Notice, channel, complaint};
use crate::api::answer;
use crate::api::body::Form;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::stamp::size;
use crate::api::update;
use crate::node::{Order, Scope, Step, Updates};

/// The system of the box; nothing where the node does not look after one.
pub(super) fn card(call: &Call) -> Markup {
    let Some(updates) = call.node().board().updates() else {
        return html! {};
    };
    html! {
        section.card aria-labelledby="system" {
            div.row.between {
                h2 #system { "System" }
                (state(&updates))
            }
            dl.facts {
                div { dt { "Version" } dd { (updates.running) } }
                div { dt { "Slot" } dd { (updates.slot.name()) } }
                @if let Some(before) = &updates.before { div { dt { "Before" } dd { (before) } } }
            }
            @if let Some(refused) = &updates.refused { p.bad { "The last bundle was refused: " (refused) "." } }
            @if let Some(last) = updates.last.as_ref().filter(|last| !last.is_good()) {
                p.bad { "Version " (last.version) " did not stay, and " (updates.running) " runs again:" }
                ul { @for reason in &last.reasons { li { (reason) } } }
            }
            (channel::news(call, &updates))
            @if call.caller.may(Scope::Admin) && updates.step == Step::Idle { (channel::forms(call, &updates)) (forms(&updates)) }
        }
    }
}

fn state(updates: &Updates) -> Markup {
    let left = |progress: crate::node::Progress| match progress.left() {
        Some(left) => format!(", {} s left", left.as_secs()),
        None => String::new(),
    };
    let text = match updates.step {
        Step::Idle => return html! {},
        Step::Fetching(progress) => {
            format!(
                "Fetching the bundle: {} of {}{}",
                size(progress.done),
                size(progress.total),
                left(progress)
            )
        }
        Step::Transferring(progress) => {
            format!(
                "Taking the bundle: {} of {}{}",
                size(progress.done),
                size(progress.total),
                left(progress)
            )
        }
        Step::Checking => "Checking the bundle".to_owned(),
        Step::Installing(progress) => format!("Installing: {} %{}", progress.done, left(progress)),
        Step::Restarting => "Restarting".to_owned(),
        Step::Trying => "New, and being judged".to_owned(),
    };
    html! { span.state { (text) } }
}

fn forms(updates: &Updates) -> Markup {
    html! {
        details {
            summary { "Update" }
            p { "Say where the bundle is: " code { "https://…" } ", " code { "usb:NAME" } " for one on a USB disk, " code { "box:ID" } " for what \
                 another box of the network runs, or the id of one that was uploaded above. The box installs it beside what runs, restarts, \
                 and goes back by itself if the new version is not well." }
            form method="post" action="/update/install" {
                div.field {
                    label for="bundle" { "Bundle" }
                    input.code #bundle type="text" name="blob" autocomplete="off" autocapitalize="none" spellcheck="false"
                        placeholder="https://…" required;
                }
                div.field {
                    label { input type="checkbox" name="older" value="yes"; " It may be no newer than what runs" }
                }
                button.main type="submit" data-ask="Install this bundle and restart the box?" { "Install and restart" }
            }
            @if let Some(before) = &updates.before {
                form method="post" action="/update/rollback" {
                    button type="submit" data-ask="Restart the box with the version before?" { "Go back to " (before) }
                }
            }
        }
    }
}

/// The form that installs.
pub(in crate::api) async fn install_update(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let begun = install_by_form(&call, &form).await;
    answered(&call, begun).await
}

async fn install_by_form(call: &Call, form: &Form) -> Result<(), Error> {
    if form.field("channel").is_some() {
        return channel::install(call).await;
    }
    let blob = form.required("blob")?.trim();
    let source = update::source_of(call, blob).await?;
    update::begin(call, source, form.field("older").is_some()).await
}

/// The button that goes back.
pub(in crate::api) async fn roll_back(call: Call) -> Result<Response, Error> {
    let begun = call.node().board().ask(Order::Rollback).await;
    answered(&call, begun.map(drop).map_err(Error::from)).await
}

pub(super) async fn answered(call: &Call, begun: Result<(), Error>) -> Result<Response, Error> {
    match begun {
        Ok(()) => Ok(answer::see_other("/")),
        Err(error) => {
            let (status, notice): (_, Notice) = complaint(error);
            Ok(answer::page(status, super::home::overview(call, &notice).await?))
        }
    }
}
