//! The channel of a box on its first page: what comes, when, and the forms that set it.

use axum::response::Response;
use maud::{Markup, html};

use super::update::answered;
use crate::api::body::Form;
use crate::api::channel as resource;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::stamp::{for_people, size};
use crate::api::update;
use crate::node::{ChannelNews, ChannelSettings, Offer, Updates, Window};

/// What is known of the channel; nothing where there is none.
pub(super) fn news(call: &Call, updates: &Updates) -> Markup {
    let channel = call.node().channel();
    let Some(settings) = channel.settings() else {
        return html! {};
    };
    let ChannelNews { offer, trouble, .. } = channel.news();
    let newer = offer.filter(|offer| offer.version > updates.running);
    html! {
        @if let Some(offer) = &newer { p { (coming(call, &settings, offer)) } }
        @if let Some(trouble) = &trouble { p.bad { "The last look for an update, or the last attempt: " (trouble) "." } }
    }
}

fn coming(call: &Call, settings: &ChannelSettings, offer: &Offer) -> Markup {
    let channel = call.node().channel();
    let planned = channel.news().planned;
    html! {
        strong { "Version " (offer.version) } " (" (size(offer.size_bytes)) ") "
        @if channel.left().contains(&offer.version) {
            "is there. The box came back from it once and will not install it by itself."
        } @else if let Some(at) = planned {
            "will be installed by itself "
            @match resource::hours_until(call, at) {
                Some(hours) => { "in about " (hours) " h, at " (for_people(at)) " UTC" }
                None => { "now, as soon as nothing is being stored" }
            }
            " (between " (settings.window) " of the box's time). It restarts then, and is away for a minute or two."
        } @else if settings.automatic {
            "is there, and was not taken: see below."
        } @else {
            "is there. It is installed when you say so."
        }
    }
}

/// The forms.
pub(super) fn forms(call: &Call, updates: &Updates) -> Markup {
    let channel = call.node().channel();
    let settings = channel.settings();
    let newer = channel
        .news()
        .offer
        .filter(|offer| offer.version > updates.running);
    html! {
        @if let Some(offer) = &newer {
            form method="post" action="/update/install" {
                input type="hidden" name="channel" value="yes";
                button.main type="submit" data-ask="Install this version and restart the box?" { "Install " (offer.version) " now" }
            }
        }
        details {
            summary { "Updates that come by themselves" }
            @match &settings {
                Some(settings) => p {
                    "From " span.mono { (settings.url) } ", heard of last at " (for_people(channel.heard())) " UTC."
                },
                None => p {
                    "A channel is a file that says which version there is, signed by whoever makes it. The box looks at it once a day, and \
                     installs at night what is newer, unless you say otherwise."
                },
            }
            form method="post" action="/update/channel" { (fields(settings.as_ref())) button type="submit" { "Set the channel" } }
            @if settings.is_some() {
                form method="post" action="/update/channel/check" { button type="submit" { "Look now" } }
                form method="post" action="/update/channel/remove" {
                    button type="submit" data-ask="Look for no more updates?" { "Remove the channel" }
                }
            }
        }
    }
}

fn fields(settings: Option<&ChannelSettings>) -> Markup {
    let url = settings.map(|settings| settings.url.to_string());
    let key = settings.map(|settings| settings.key.to_string());
    let window = settings.map_or_else(Window::default, |settings| settings.window);
    let is_automatic = settings.is_none_or(|settings| settings.automatic);
    html! {
        div.field {
            label for="channel-url" { "URL" }
            input.code #channel-url type="url" name="url" value=[url] placeholder="https://…" required;
        }
        div.field {
            label for="channel-key" { "Key of whoever signs it" }
            input.code #channel-key type="text" name="key" value=[key] autocomplete="off" autocapitalize="none" spellcheck="false"
                placeholder="ed25519;…" required;
        }
        div.field {
            label { input type="checkbox" name="automatic" value="yes" checked[is_automatic]; " Install what is newer by itself" }
        }
        div.field {
            label for="channel-window" { "Between, in the box's time" }
            input.code #channel-window type="text" name="window" value=(window) required;
        }
    }
}

/// The form that sets the channel.
pub(in crate::api) async fn set_channel(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let set = set_by_form(&call, &form).await;
    answered(&call, set).await
}

async fn set_by_form(call: &Call, form: &Form) -> Result<(), Error> {
    let (url, key) = (form.required("url")?, form.required("key")?);
    let is_automatic = form.field("automatic").is_some();
    resource::set_to(
        call,
        url,
        key,
        is_automatic,
        form.field("window").unwrap_or_default(),
    )
    .await
}

/// The button that asks the channel.
pub(in crate::api) async fn check_channel(mut call: Call) -> Result<Response, Error> {
    call.take_body().form().await?;
    let looked = resource::look(&call).await;
    answered(&call, looked.map(drop)).await
}

/// The button that forgets it.
pub(in crate::api) async fn remove_channel(mut call: Call) -> Result<Response, Error> {
    call.take_body().form().await?;
    let removed = call.node().channel().remove().await;
    answered(&call, removed.map_err(Error::from)).await
}

/// The button that installs what the channel has.
pub(super) async fn install(call: &Call) -> Result<(), Error> {
    let source = resource::source(call, false).await?;
    update::begin(call, source, false).await
}
