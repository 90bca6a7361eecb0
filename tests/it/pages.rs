//! The node's own pages, as a browser without scripts uses them.

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
