//! The first page: to whom the node is a stranger it offers to be claimed or to sign in, to its people how it is.

use std::net::SocketAddr;

use axum::http::{StatusCode, header};
use axum::response::Response;
use maud::{Markup, html};

use super::{Notice, Place, complaint, framed};
use crate::api::answer;
use crate::api::auth;
use crate::api::body::Form;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::session;
use crate::api::stamp::{self, size};
use crate::api::status;
use crate::id::StoreName;
use crate::node::{FoundBy, NewSession, Password, Peer, RefRecord, Scope, StoreInfo};

/// The first page.
pub(in crate::api) async fn home(call: Call) -> Result<Response, Error> {
    if !call.connection.is_private() {
        return Ok(answer::page(StatusCode::OK, landing(&call)));
    }
    if call.caller.is_known() {
        let page = overview(&call, &Notice::Nothing).await?;
        return Ok(answer::page(StatusCode::OK, page));
    }
    let page = welcome(&call, &Notice::Nothing, "");
    Ok(answer::page(StatusCode::OK, page))
}

/// What plain HTTP serves: the way to HTTPS, and nothing that a liar on the line could profit from.
fn landing(call: &Call) -> Markup {
    let content = html! {
        div.card.narrow {
            h1 { "This is a Refuge node" }
            p { "Its pages are at its encrypted address:" }
            ul {
                @for link in secure_links(call) { li { a href=(link) { (link) } } }
            }
            p.quiet.small {
                "Your browser will warn that it does not know the certificate, as the node made it itself. \
                 Compare its fingerprint with the one on the node's console or label before you go on."
            }
        }
    };
    framed(call, Place::Elsewhere, "Welcome", &Notice::Nothing, &content)
}

fn secure_links(call: &Call) -> Vec<String> {
    let port = match call.edge.https_port {
        Some(443) => String::new(),
        Some(port) => format!(":{port}"),
        None => return Vec::new(),
    };
    let hosts = [call.connection.own_host(), call.node().identity().host_name()];
    hosts
        .iter()
        .map(|host| format!("https://{host}{port}/"))
        .collect()
}

/// To a stranger: the form to claim the node, or to sign in.
fn welcome(call: &Call, notice: &Notice, account: &str) -> Markup {
    if call.node().claim().is_claimed() {
        sign_in_page(call, notice, account)
    } else {
        claim_page(call, notice, account)
    }
}

fn sign_in_page(call: &Call, notice: &Notice, account: &str) -> Markup {
    let content = html! {
        div.card.narrow {
            h1 { "Sign in" }
            form method="post" action="/sign-in" {
                div.field {
                    label for="account" { "Account" }
                    input #account type="text" name="account" value=(account) autocomplete="username"
                        autocapitalize="none" spellcheck="false" required autofocus;
                }
                div.field {
                    label for="password" { "Password" }
                    input #password type="password" name="password" autocomplete="current-password" required;
                }
                button.main type="submit" { "Sign in" }
            }
        }
    };
    framed(call, Place::Elsewhere, "Sign in", notice, &content)
}

fn claim_page(call: &Call, notice: &Notice, account: &str) -> Markup {
    let needs_code = !call.node().claim().is_window_open();
    let content = html! {
        div.card.narrow {
            h1 { "Claim this node" }
            @if needs_code {
                p { "Nobody owns this node yet. Its claim code is shown where it was started. On a box with a button, \
                     press that and load this page again: for two minutes no code is needed." }
            } @else {
                p { "Nobody owns this node yet. Its button was pressed: for two minutes no code is needed." }
            }
            form method="post" action="/claim" {
                @if needs_code {
                    div.field {
                        label for="code" { "Claim code" }
                        input.code #code type="text" name="code" autocomplete="off" autocapitalize="characters"
                            spellcheck="false" placeholder="XXXX-XXXX-XXXX-XXXX" aria-describedby="code-hint"
                            required autofocus;
                        p.hint #code-hint { "16 letters and digits; dashes and case do not matter." }
                    }
                }
                div.field {
                    label for="account" { "Your account" }
                    input #account type="text" name="account" value=(account) autocomplete="username"
                        autocapitalize="none" spellcheck="false" aria-describedby="account-hint" required;
                    p.hint #account-hint { "Small letters and digits, for example your first name." }
                }
                div.field {
                    label for="password" { "A new password" }
                    input #password type="password" name="password" autocomplete="new-password"
                        minlength="8" aria-describedby="password-hint" required;
                    p.hint #password-hint { "At least 8 characters. Length counts more than symbols." }
                }
                button.main type="submit" { "Become the owner" }
            }
        }
    };
    framed(call, Place::Elsewhere, "Claim this node", notice, &content)
}

/// The claim form.
pub(in crate::api) async fn claim(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let claimed = claim_by_form(&call, &form).await;
    Ok(signed_in(&call, claimed, &form))
}

async fn claim_by_form(call: &Call, form: &Form) -> Result<NewSession, Error> {
    let account = form.required("account")?;
    let account = account
        .parse()
        .map_err(|error| Error::malformed("account", error))?;
    let password = Password::new(form.required("password")?.to_owned())?;
    let (claim, address) = (call.node().claim(), call.connection.peer());
    let session = match form.field("code") {
        Some(code) => claim.by_code(code, account, password, address).await?,
        None => claim.by_button(account, password, address).await?,
    };
    Ok(session)
}

/// The sign-in form.
pub(in crate::api) async fn sign_in(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let session = sign_in_by_form(&call, &form).await;
    Ok(signed_in(&call, session, &form))
}

async fn sign_in_by_form(call: &Call, form: &Form) -> Result<NewSession, Error> {
    let (account, password) = (form.required("account")?, form.required("password")?);
    session::begin(call, account, password.to_owned()).await
}

fn signed_in(call: &Call, session: Result<NewSession, Error>, form: &Form) -> Response {
    match session {
        Ok(session) => {
            let mut response = answer::see_other("/");
            let cookie = auth::set_cookie(&call.connection, session.cookie.expose());
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            response
        }
        Err(error) => {
            let (status, notice) = complaint(error);
            let account = form.field("account").unwrap_or_default();
            answer::page(status, welcome(call, &notice, account))
        }
    }
}

/// The button that signs out.
pub(in crate::api) async fn sign_out(call: Call) -> Result<Response, Error> {
    let mut response = answer::see_other("/");
    session::end(&call, &mut response).await?;
    Ok(response)
}

/// The page of those who are signed in.
pub(super) async fn overview(call: &Call, notice: &Notice) -> Result<Markup, Error> {
    let may_read = call.caller.may(Scope::Read);
    let stores = if may_read {
        call.node().stores().list()
    } else {
        Vec::new()
    };
    let mut refs = Vec::new();
    for info in &stores {
        // Those of a store whose disk is not there are with it again when it is back.
        if info.offline.is_some() {
            continue;
        }
        let of_store = call.node().stores().refs(&info.name)?.list().await?;
        refs.extend(of_store.into_iter().map(|record| (info.name.clone(), record)));
    }
    let content = html! {
        (state_card(call, &stores))
        @if may_read { (refs_card(&refs)) }
        @if call.caller.may(Scope::Ingest) { (upload_card()) }
        @if may_read { (super::update::card(call)) (stores_card(&stores)) (peers_card(&call.node().peers().list())) }
    };
    Ok(framed(call, Place::Home, "Overview", notice, &content))
}

fn state_card(call: &Call, stores: &[StoreInfo]) -> Markup {
    let identity = call.node().identity();
    let report = call.node().health().report();
    let sum = |of: fn(&StoreInfo) -> u64| stores.iter().map(of).sum::<u64>();
    let free = stores.iter().filter_map(|info| info.status.free_bytes).max();
    let heat = call
        .node()
        .board()
        .hardware()
        .and_then(|hardware| hardware.temperature_mc);
    html! {
        section.card aria-labelledby="state" {
            div.row.between {
                h1 #state { (identity.host_name().trim_end_matches(".local")) }
                @match status::state(&report) {
                    "ok" => span.state.good { "All is well" },
                    "damaged" => span.state.bad { "Damaged blobs were set aside" },
                    "degraded" => span.state.bad { "Someone should look" },
                    _ => span.state.bad { "Read only: check the disk" },
                }
            }
            @if !report.reasons.is_empty() {
                ul { @for reason in &report.reasons { li { (reason) } } }
            }
            dl.facts {
                div { dt { "Blobs" } dd { (sum(|info| info.status.blobs)) } }
                div { dt { "Data" } dd { (size(sum(|info| info.status.plain_bytes))) } }
                div { dt { "On disk" } dd { (size(sum(|info| info.status.stored_bytes))) } }
                @if let Some(free) = free { div { dt { "Free" } dd { (size(free)) } } }
                @if let Some(heat) = heat { div { dt { "Temperature" } dd { (heat / 1000) " °C" } } }
            }
            dl.lines {
                dt { "Node id" } dd.mono { (identity.node_id()) }
                dt { "Fingerprint of its certificate's key" } dd.mono { (identity.fingerprint()) }
            }
        }
    }
}

fn refs_card(refs: &[(StoreName, RefRecord)]) -> Markup {
    html! {
        section.card aria-labelledby="refs" {
            h2 #refs { "Backups" }
            @if refs.is_empty() {
                p { "Nothing is backed up here yet. From the machine with your data:" }
                p { code { "refuge backup FOLDER --ref NAME --node URL" } }
            } @else {
                table {
                    thead { tr {
                        th scope="col" { "Ref" }
                        th scope="col" { "Latest (UTC)" }
                        th.number.optional scope="col" { "Files" }
                        th.number.optional scope="col" { "Size" }
                        th.number scope="col" { "Snapshots" }
                    } }
                    tbody {
                        @for (store, record) in refs {
                            tr {
                                td { a href=(super::browse::link(store, record.name.as_str(), "latest", b"")) { (record.name) } }
                                @if let Some(latest) = record.latest() {
                                    td { (stamp::seconds_for_people(latest.time_ms / 1000)) }
                                    td.number.optional { (latest.files) }
                                    td.number.optional { (size(latest.bytes)) }
                                } @else {
                                    td { "under way" } td.optional {} td.optional {}
                                }
                                td.number { (record.snapshots.len()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn upload_card() -> Markup {
    html! {
        section.card aria-labelledby="upload" {
            h2 #upload { "Upload files" }
            // The script shows the form: without it, it could not send a file as it is.
            form data-upload="/blobs" hidden {
                div.field {
                    label for="files" { "Files to store in " code { "main" } }
                    input #files type="file" multiple required;
                }
                button.main type="submit" { "Upload" }
                ul.uploads aria-live="polite" {}
            }
            noscript { p { "Uploads from this page need JavaScript. " code { "refuge put FILE --node URL" } " does not." } }
        }
    }
}

fn stores_card(stores: &[StoreInfo]) -> Markup {
    html! {
        section.card aria-labelledby="stores" {
            h2 #stores { "Stores" }
            table {
                thead { tr {
                    th scope="col" { "Store" }
                    th.number scope="col" { "Blobs" }
                    th.number scope="col" { "Data" }
                    th.number.optional scope="col" { "On disk" }
                    th.number.optional scope="col" { "To be freed" }
                    th scope="col" { "State" }
                } }
                tbody {
                    @for info in stores {
                        tr {
                            td { (info.name) }
                            td.number { (info.status.blobs) }
                            td.number { (size(info.status.plain_bytes)) }
                            td.number.optional { (size(info.status.stored_bytes)) }
                            td.number.optional { (size(info.status.dead_bytes)) }
                            td {
                                @if info.offline.is_some() { span.bad { "offline" } }
                                @else if info.status.read_only.is_some() { span.bad { "read only" } }
                                @else if info.status.quarantined > 0 {
                                    span.bad { (info.status.quarantined) " damaged" }
                                } @else { span.good { "well" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Other nodes on the local network: what they say of themselves.
fn peers_card(peers: &[Peer]) -> Markup {
    html! {
        section.card aria-labelledby="peers" {
            h2 #peers { "Other nodes on this network" }
            @if peers.is_empty() {
                p { "None was seen." }
            } @else {
                table {
                    thead { tr {
                        th scope="col" { "Name" }
                        th scope="col" { "Address" }
                        th scope="col" { "Owner" }
                        th.optional scope="col" { "Found by" }
                        th.optional scope="col" { "Seen (UTC)" }
                    } }
                    tbody {
                        @for peer in peers {
                            tr {
                                td { (peer.host.label()) }
                                td { @if let Some(address) = peer.https.first() { (link(address)) } }
                                td { @if peer.is_claimed { "has one" } @else { "none yet" } }
                                td.optional { (found_by(peer)) }
                                td.optional { (stamp::for_people(peer.seen)) }
                            }
                        }
                    }
                }
                p.quiet.small { "This is what they say of themselves: compare the fingerprint before you trust one." }
            }
        }
    }
}

/// A link where a browser can follow it: an address of one interface says nothing to it.
fn link(address: &SocketAddr) -> Markup {
    let url = format!("https://{address}/");
    let is_local = matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local());
    html! {
        @if is_local { (address) } @else { a href=(url) rel="noreferrer" { (address) } }
    }
}

fn found_by(peer: &Peer) -> String {
    let names: Vec<_> = peer
        .found_by
        .iter()
        .map(|found_by| FoundBy::name(*found_by))
        .collect();
    names.join(", ")
}
