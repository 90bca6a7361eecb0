//! The node's own pages, as a browser without scripts uses them.

use refuge::id::StoreName;
use refuge::node::{Adoption, Disk, Done, Holds, MoveTo, Order};

use crate::served::{Ask, PASSWORD, Reply, Served};

const FORM: &str = "application/x-www-form-urlencoded";

fn submit(served: &Served, target: &str, fields: &str) -> Ask {
    served
        .ask("POST", target)
        .header("Origin", served.origin())
        .body(FORM, fields)
}

fn cookie_of(reply: &Reply) -> String {
    let set = reply.header("set-cookie");
    set.split(';').next().unwrap().to_owned()
}

#[test]
fn a_stranger_claims_the_node_and_is_signed_in() {
    let served = Served::unclaimed();
    let first = served.ask("GET", "/").send();
    assert!(first.text().contains("Claim this node"));
    let wrong = submit(
        &served,
        "/claim",
        "code=0000-0000-0000-0000&account=ada&password=long+enough",
    )
    .send();
    assert_eq!(wrong.status, 403);
    assert!(wrong.text().contains("role=\"alert\""), "{}", wrong.text());
    let code = served.node.claim().code().unwrap().reveal();
    let fields = format!("code={code}&account=ada&password=long+enough");
    let claimed = submit(&served, "/claim", &fields).send();
    assert_eq!((claimed.status, claimed.header("location")), (303, "/"));
    let cookie = cookie_of(&claimed);
    let overview = served.ask("GET", "/").header("Cookie", &cookie).send();
    assert!(overview.text().contains("All is well"), "{}", overview.text());
    assert!(served.ask("GET", "/").send().text().contains("Sign in"));
}

#[test]
fn a_wrong_password_is_told_on_the_page_and_a_right_one_signs_in_and_out() {
    let served = Served::claimed();
    let wrong = submit(&served, "/sign-in", "account=ada&password=wrong+password").send();
    assert_eq!(wrong.status, 401);
    assert!(wrong.text().contains("value=\"ada\""));
    let fields = format!("account=ada&password={}", PASSWORD.replace(' ', "+"));
    let cookie = cookie_of(&submit(&served, "/sign-in", &fields).send());
    let out = submit(&served, "/sign-out", "").header("Cookie", &cookie).send();
    assert_eq!(out.status, 303);
    let account = served.ask("GET", "/account").header("Cookie", &cookie).send();
    assert_eq!(account.status, 401);
}

#[test]
fn a_token_is_made_shown_once_and_revoked() {
    let served = Served::claimed();
    let cookie = served.cookie();
    let none = submit(&served, "/tokens", "label=x")
        .header("Cookie", &cookie)
        .send();
    assert_eq!(none.status, 400);
    let made = submit(&served, "/tokens", "label=laptop&read=yes&days=7")
        .header("Cookie", &cookie)
        .send();
    assert_eq!(made.status, 201, "{}", made.text());
    let token = made
        .text()
        .split("<code>")
        .nth(1)
        .unwrap()
        .split('<')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(served.ask("GET", "/blobs").bearer(&token).send().status, 200);
    let listed = served
        .ask("GET", "/tokens")
        .header("Cookie", &cookie)
        .send()
        .text();
    assert!(listed.contains("laptop") && !listed.contains(&token));
    let id = listed
        .split("name=\"id\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let revoked = submit(&served, "/tokens/revoke", &format!("id={id}"))
        .header("Cookie", &cookie)
        .send();
    assert_eq!(revoked.status, 303);
    assert_eq!(served.ask("GET", "/blobs").bearer(&token).send().status, 401);
}

#[test]
fn a_person_who_is_not_signed_in_sees_a_page_that_says_so() {
    let served = Served::claimed();
    let page = served.ask("GET", "/tokens").header("Accept", "text/html").send();
    assert_eq!(page.status, 401);
    assert!(page.text().contains("Sign in first"));
    assert!(!page.header("www-authenticate").contains("Basic"));
}

/// Does what a board edge is asked with one hostile disk, and notes it, until the node is gone.
fn obey(served: &Served) -> std::sync::Arc<std::sync::Mutex<Vec<Order>>> {
    let mut orders = served.node.board().orders().unwrap();
    let noted = std::sync::Arc::<std::sync::Mutex<Vec<Order>>>::default();
    let notes = std::sync::Arc::clone(&noted);
    std::thread::spawn(move || {
        while let Some(asked) = orders.blocking_recv() {
            let disk = Disk {
                name: "sda".parse().unwrap(),
                title: "<b>Evil</b>".to_owned(),
                serial: "\"><script>".parse().unwrap(),
                size_bytes: 64_000_000_000,
                holds: Holds::Foreign {
                    what: vec!["sda1: ntfs".to_owned()],
                },
            };
            let done = match &asked.order {
                Order::Disks => Done::Disks(vec![disk]),
                order => {
                    notes.lock().unwrap().push(order.clone());
                    Done::Done
                }
            };
            asked.answer(Ok(done));
        }
    });
    noted
}

#[test]
fn the_page_of_the_box_lists_disks_and_its_forms_give_orders() {
    let served = Served::claimed();
    let cookie = served.cookie();
    let get = |target| served.ask("GET", target).header("Cookie", &cookie).send();
    assert!(
        !get("/").text().contains("href=\"/board\""),
        "no board, no page in the menu"
    );
    assert!(get("/board").text().contains("knows of no board"));
    let orders = obey(&served);
    assert!(get("/").text().contains("href=\"/board\""));
    let page = get("/board").text();
    assert!(page.contains("&lt;b&gt;Evil") && page.contains("sda1: ntfs") && page.contains("Format it"));
    assert!(
        !page.contains("<script>") && !page.contains("<b>Evil"),
        "what a disk says of itself is text"
    );
    let host = served.node.identity().host_name();
    let send = |target, fields: &str| submit(&served, target, fields).header("Cookie", &cookie).send();
    let adopted = send("/board/adopt", "disk=sda&serial=5758&store=photos&format=yes");
    assert_eq!(adopted.status, 200);
    assert!(adopted.text().contains("role=\"status\""));
    send("/board/move", "store=main&to=sda");
    send("/board/move", "store=main&to=card");
    send("/board/eject", "store=photos");
    send("/board/identify", "");
    for wrong in ["host=refuge-aaaaaa.local", "host=", ""] {
        assert_eq!(send("/board/reset", wrong).status, 400, "{wrong}");
    }
    assert_eq!(send("/board/adopt", "disk=..%2Fsda&serial=1&store=x").status, 400);
    assert_eq!(send("/board/move", "store=main&to=%2Fetc").status, 400);
    assert_eq!(send("/board/reset", &format!("host={host}")).status, 200);
    let main = StoreName::main();
    let expected = [
        Order::Adopt(Adoption {
            disk: "sda".parse().unwrap(),
            serial: "5758".parse().unwrap(),
            may_format: true,
            store: "photos".parse().unwrap(),
        }),
        Order::Move {
            store: main.clone(),
            to: MoveTo::Disk("sda".parse().unwrap()),
        },
        Order::Move {
            store: main,
            to: MoveTo::Card,
        },
        Order::Eject("photos".parse().unwrap()),
        Order::Identify,
        Order::Reset,
    ];
    assert_eq!(*orders.lock().unwrap(), expected);
}

#[test]
fn strangers_and_other_pages_give_the_box_no_orders() {
    let served = Served::claimed();
    let orders = obey(&served);
    let cookie = served.cookie();
    for target in ["adopt", "eject", "move", "identify", "reset"] {
        let target = format!("/board/{target}");
        let fields = format!(
            "disk=sda&serial=1&store=main&to=card&host={}",
            served.node.identity().host_name()
        );
        assert_eq!(submit(&served, &target, &fields).send().status, 401, "{target}");
        let foreign = served
            .ask("POST", &target)
            .header("Origin", "https://evil.example")
            .header("Cookie", &cookie)
            .body(FORM, fields.as_str())
            .send();
        assert_eq!(foreign.status, 403, "{target}");
    }
    assert_eq!(*orders.lock().unwrap(), []);
}
