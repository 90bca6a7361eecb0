//! The page of the box itself: its disks and what is on them, which box it is, and starting over.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::{Notice, Place, complaint, framed, sentence};
use crate::api::answer;
use crate::api::board as resource;
use crate::api::body::Form;
use crate::api::error::Error;
use crate::api::route::Call;
use crate::api::stamp::size;
use crate::id::{DiskName, DiskSerial, DiskUuid, StoreName};
use crate::node::{Adoption, BackendSettings, Disk, Holds, MoveTo, Order, StoreInfo};

/// The page.
pub(in crate::api) async fn board(call: Call) -> Result<Response, Error> {
    let page = page(&call, &Notice::Nothing).await;
    Ok(answer::page(StatusCode::OK, page))
}

/// The form that adopts a disk.
pub(in crate::api) async fn adopt(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let order = adoption(&form).map(Order::Adopt);
    done(&call, order, "The disk holds a store now.").await
}

fn adoption(form: &Form) -> Result<Adoption, Error> {
    Ok(Adoption {
        disk: named::<DiskName>(form, "disk")?,
        serial: named::<DiskSerial>(form, "serial")?,
        may_format: form.field("format").is_some(),
        store: named::<StoreName>(form, "store")?,
    })
}

/// The buttons that eject.
pub(in crate::api) async fn eject(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let order = named::<StoreName>(&form, "store").map(Order::Eject);
    done(&call, order, "The disk can be pulled.").await
}

/// The form that has a store move.
pub(in crate::api) async fn move_store(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let order = named::<StoreName>(&form, "store").and_then(|store| {
        let to = named::<MoveTo>(&form, "to")?;
        Ok(Order::Move { store, to })
    });
    let said = "Its blobs are carried there; until all of them are, the store stays where it is.";
    done(&call, order, said).await
}

/// The button that shows which box this is.
pub(in crate::api) async fn identify(mut call: Call) -> Result<Response, Error> {
    call.take_body().form().await?;
    done(&call, Ok(Order::Identify), "Its light blinks for ten seconds.").await
}

/// The form that resets it.
pub(in crate::api) async fn reset(mut call: Call) -> Result<Response, Error> {
    let form = call.take_body().form().await?;
    let own = call.node().identity().host_name();
    let is_meant = form
        .required("host")
        .is_ok_and(|host| host == own || Some(host) == own.strip_suffix(".local"));
    let order = match is_meant {
        true => Ok(Order::Reset),
        false => Err(Error::malformed(
            "host",
            format_args!("type {own}, the name of this box, to reset it"),
        )),
    };
    let said = "The box destroys what it holds and comes back as another, with a new claim code.";
    done(&call, order, said).await
}

/// A field that is a name.
fn named<T: std::str::FromStr<Err: std::fmt::Display>>(form: &Form, field: &'static str) -> Result<T, Error> {
    form.required(field)?
        .trim()
        .parse()
        .map_err(|error| Error::malformed(field, error))
}

/// Has an order done, and answers with the page that says what came of it.
async fn done(call: &Call, order: Result<Order, Error>, said: &str) -> Result<Response, Error> {
    let asked = match order {
        Ok(order) => call.node().board().ask(order).await.map_err(Error::from),
        Err(error) => Err(error),
    };
    let (status, notice) = match asked {
        Ok(_) => (StatusCode::OK, Notice::Good(said.to_owned())),
        Err(error) => complaint(error),
    };
    Ok(answer::page(status, page(call, &notice).await))
}

async fn page(call: &Call, notice: &Notice) -> Markup {
    let stores = call.node().stores().list();
    let (disks, trouble) = match resource::listed(call).await {
        Ok(disks) => (disks, None),
        Err(error) => (Vec::new(), Some(sentence(&error.reason()))),
    };
    let content = html! {
        (disks_card(&disks, trouble.as_deref(), &stores))
        (stores_card(&disks, &stores))
        (box_card(call))
    };
    framed(call, Place::Board, "Box", notice, &content)
}

fn disks_card(disks: &[Disk], trouble: Option<&str>, stores: &[StoreInfo]) -> Markup {
    html! {
        section.card aria-labelledby="disks" {
            h1 #disks { "Disks" }
            @if let Some(trouble) = trouble {
                p.bad { (trouble) }
            } @else if disks.is_empty() {
                p { "None is plugged in." }
            } @else {
                table {
                    thead { tr {
                        th scope="col" { "Disk" }
                        th.number scope="col" { "Size" }
                        th.optional scope="col" { "Serial" }
                        th scope="col" { "Holds" }
                    } }
                    tbody {
                        @for disk in disks {
                            tr {
                                td { (disk.name) " " span.quiet { (disk.title) } }
                                td.number { (size(disk.size_bytes)) }
                                td.mono.optional { (disk.serial) }
                                td { (holds(disk, stores)) }
                            }
                        }
                    }
                }
            }
            @for disk in disks.iter().filter(|disk| may_be_adopted(disk, stores)) { (adopt_form(disk)) }
        }
    }
}

fn holds(disk: &Disk, stores: &[StoreInfo]) -> Markup {
    html! {
        @match (&disk.holds, store_on(disk, stores)) {
            (_, Some(store)) => { "the store " (store.name) }
            (Holds::System, None) => { "the box itself" }
            (Holds::Nothing, None) => { "nothing" }
            (Holds::Refuge { .. }, None) => { "blobs of a node" }
            (Holds::Foreign { what }, None) => { (what.join(", ")) }
        }
    }
}

fn may_be_adopted(disk: &Disk, stores: &[StoreInfo]) -> bool {
    disk.holds != Holds::System && store_on(disk, stores).is_none()
}

fn adopt_form(disk: &Disk) -> Markup {
    let serial = format!("serial-{}", disk.name);
    let store = format!("store-{}", disk.name);
    html! {
        form method="post" action="/board/adopt" {
            h2 { "Keep a store on " (disk.name) }
            input type="hidden" name="disk" value=(disk.name);
            div.field {
                label for=(serial) { "Its serial, as above and on its label, so that no other disk is meant" }
                input id=(serial) type="text" name="serial" maxlength="128" autocomplete="off" required;
            }
            div.field {
                label for=(store) { "What the store is to be called" }
                input id=(store) type="text" name="store" value="disk" required;
            }
            @if let Holds::Foreign { what } = &disk.holds {
                label {
                    input type="checkbox" name="format" value="yes" required;
                    span { "Format it: " strong { (what.join(", ")) } " is lost" }
                }
            }
            button.main type="submit" { "Adopt the disk" }
        }
    }
}

fn stores_card(disks: &[Disk], stores: &[StoreInfo]) -> Markup {
    let on_disks: Vec<&StoreInfo> = stores.iter().filter(|info| disk_of(info).is_some()).collect();
    let free: Vec<&Disk> = disks
        .iter()
        .filter(|disk| matches!(disk.holds, Holds::Refuge { .. }))
        .collect();
    html! {
        section.card aria-labelledby="places" {
            h2 #places { "Stores on disks" }
            @if on_disks.is_empty() { p { "All stores are on the card." } }
            @for info in on_disks {
                form.row.between method="post" action="/board/eject" {
                    input type="hidden" name="store" value=(info.name);
                    span { (info.name) @if info.offline.is_some() { " " span.bad { "offline" } } }
                    button type="submit" aria-label=(format!("Eject {}", info.name)) { "Eject" }
                }
            }
            @for info in stores {
                @if let Some(moving) = &info.moving {
                    p {
                        "The store " (info.name) " moves: " (moving.blobs) " of " (info.status.blobs) " blobs looked at."
                        @if let Some(trouble) = &moving.trouble { " " span.bad { (sentence(trouble)) } }
                    }
                }
            }
            form method="post" action="/board/move" {
                h2 { "Move a store" }
                p.quiet { "It is used meanwhile. An adopted disk whose own store is empty can take one." }
                div.field {
                    label for="moved" { "Which?" }
                    select #moved name="store" { @for info in stores { option value=(info.name) { (info.name) } } }
                }
                div.field {
                    label for="to" { "Where to?" }
                    select #to name="to" {
                        @for disk in free { option value=(disk.name) { (disk.name) " " (disk.title) } }
                        option value=(MoveTo::Card) { "The card" }
                    }
                }
                button type="submit" { "Move it" }
            }
        }
    }
}

fn box_card(call: &Call) -> Markup {
    let host = call.node().identity().host_name();
    html! {
        section.card aria-labelledby="box" {
            h2 #box { "This box" }
            form method="post" action="/board/identify" {
                p { "Which one is it? Its light shows it for ten seconds." }
                button type="submit" { "Show which box this is" }
            }
            form method="post" action="/board/reset" {
                h2 { "Factory reset" }
                p { "Keys, accounts, tokens and all data on the card are destroyed. Disks that were adopted keep what they hold." }
                div.field {
                    label for="host" { "Type " code { (host) } " to reset this box" }
                    input #host type="text" name="host" autocomplete="off" required;
                }
                button type="submit" { "Destroy everything on it" }
            }
        }
    }
}

/// The store that is on a disk.
fn store_on<'a>(disk: &Disk, stores: &'a [StoreInfo]) -> Option<&'a StoreInfo> {
    let Holds::Refuge { uuid } = &disk.holds else {
        return None;
    };
    stores
        .iter()
        .find(|info| disk_of(info).is_some_and(|found| found == *uuid))
}

/// What the disk of a store is called, where it has one of its own: the name of the folder above that of its blobs.
fn disk_of(info: &StoreInfo) -> Option<DiskUuid> {
    match &info.settings.backend {
        BackendSettings::Fs { path: Some(path), .. } => path.parent()?.file_name()?.to_str()?.parse().ok(),
        BackendSettings::Fs { path: None, .. }
        | BackendSettings::Haystack { .. }
        | BackendSettings::Memory {} => None,
    }
}
