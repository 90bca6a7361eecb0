//! S3, S4, S9, S10, S11: who gets in, and by what.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use refuge::node::Scope;

use super::routes;
use crate::fault::driver::Claimed;
use crate::measure::{memory_kib, reset_peak};
use crate::served::{PASSWORD, PATIENCE, Served, exchange_over};
use crate::support::{Http, Node};

/// Everything that anybody may use. A change here is a decision about the node's security. What signs in, a person's way with a form
/// and a program's in each of the two APIs, has to be here, and so have the pages that show the form; `security.txt` is for whoever
/// found a hole (RFC 9116), and by the status a program knows which node answers and whether it waits for its owner.
const PUBLIC: [&str; 7] = [
    "GET /",
    "GET /.well-known/security.txt",
    "GET /api/status",
    "GET /assets/{name}",
    "POST /api/session",
    "POST /db/_session",
    "POST /sign-in",
];

/// Everything that anybody may use as long as the node has no owner: nobody can sign in then.
const PUBLIC_UNCLAIMED: [&str; 6] = [
    "GET /",
    "GET /.well-known/security.txt",
    "GET /api/status",
    "GET /assets/{name}",
    "POST /api/claim",
    "POST /claim",
];

/// Security row S3.
const PUBLIC_MAX: usize = 8;
const _: () = assert!(PUBLIC.len() <= PUBLIC_MAX && PUBLIC_UNCLAIMED.len() <= PUBLIC_MAX);

const SPOOFED: [(&str, &str); 10] = [
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Host", "localhost"),
    ("X-Forwarded-Proto", "https"),
    ("X-Real-IP", "127.0.0.1"),
    ("Forwarded", "for=127.0.0.1;proto=https"),
    ("X-User-ID", "ada"),
    ("X-Remote-User", "ada"),
    ("X-Client-IP", "::1"),
    ("True-Client-IP", "127.0.0.1"),
    ("X-Original-URL", "/"),
];

#[test]
fn s3_a_stranger_is_refused_everywhere_but_on_the_checked_in_list() {
    let claimed = Served::claimed();
    let routes = routes(&claimed);
    for (served, expected) in [
        (&claimed, &PUBLIC[..]),
        (&Served::unclaimed(), &PUBLIC_UNCLAIMED[..]),
    ] {
        let mut public = Vec::new();
        for route in &routes {
            let name = format!("{} {}", route.method, route.path);
            let reply = route.ask(served).send();
            if reply.status == 401 || (reply.status == 403 && is_of_the_gate(&reply.code())) {
                continue;
            }
            assert!(route.is_public, "{name} answers a stranger with {}", reply.status);
            public.push(name);
        }
        public.sort();
        assert_eq!(public, expected);
    }
}

/// Whether that is said before anything of the request but who asks is looked at: a form without its origin is refused as well.
fn is_of_the_gate(code: &str) -> bool {
    ["claimed", "unclaimed", "not_offered"].contains(&code)
}

#[test]
fn s4_no_forwarded_header_changes_an_answer() {
    let served = Served::claimed();
    let metrics = served.token(&[Scope::Metrics]);
    for route in routes(&served)
        .into_iter()
        .filter(|route| route.path != "/api/events")
    {
        let plain = route.ask(&served).send().status;
        let with_token = route.ask(&served).bearer(&metrics).send().status;
        for (name, value) in SPOOFED {
            let spoofed = route.ask(&served).header(name, value).send().status;
            assert_eq!(spoofed, plain, "{route:?} with {name}");
        }
        let all = SPOOFED
            .iter()
            .fold(route.ask(&served).bearer(&metrics), |ask, (name, value)| {
                ask.header(name, *value)
            });
        assert_eq!(all.send().status, with_token, "{route:?} with all of them");
    }
}

/// Guesses, from so many addresses in turn.
const GUESSES: u32 = 1000;
const ADDRESSES: u32 = 200;

/// S9: guesses that may cost a hash, and what all of them may add to the memory.
const EVALUATED_MAX: u64 = 15;
const GUESSES_ADD_KIB: u64 = 24 * 1024;

#[test]
fn s9_of_a_thousand_guesses_few_are_worth_a_hash_and_the_owner_is_served() {
    let claimed = Claimed::template();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    claimed.copy_to(&data);
    let node = Node::start(&data).unwrap();
    let mut owner = node.client(&claimed.token).unwrap();
    let hashed = |owner: &mut Http| {
        let metrics = owner.send("GET", "/metrics", &[], &[]).unwrap().text();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("refuge_password_hashes_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let started = Instant::now();
    let (before, began) = (memory_kib(node.pid(), "VmRSS"), hashed(&mut owner));
    reset_peak(node.pid());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let body = r#"{"account":"ada","password":"wrong guess"}"#;
    let wire = format!(
        "POST /api/session HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        node.address(),
        body.len()
    );
    let mut wrong = 0;
    for guess in 0..GUESSES {
        // All of 127.0.0.0/8 is this machine.
        let [_, _, high, low] = (guess % ADDRESSES + 2).to_be_bytes();
        let from = SocketAddr::from(([127, 0, high, low], 0));
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind(from)?;
            socket.connect(node.address()).await?.into_std()
        });
        let reply = exchange_over(stream.unwrap(), wire.as_bytes());
        match reply.status {
            401 => wrong += 1,
            429 => assert!(!reply.header("retry-after").is_empty()),
            other => panic!("{other}: {}", reply.text()),
        }
        if guess % 50 == 0 {
            let served = owner.send("GET", "/blobs", &[], &[]).unwrap();
            assert_eq!(served.status, 200, "{}", served.text());
        }
    }
    let evaluated = hashed(&mut owner) - began;
    assert_eq!(evaluated, wrong, "what was refused without a hash cost none");
    // A minute that ends meanwhile lets as many in again.
    let minutes = 1 + u64::from(u32::try_from(started.elapsed().as_secs() / 60).unwrap());
    assert!(
        evaluated <= EVALUATED_MAX * minutes,
        "{evaluated} guesses were evaluated"
    );
    let added = memory_kib(node.pid(), "VmHWM").saturating_sub(before);
    assert!(added <= GUESSES_ADD_KIB, "{added} KiB more");
}

#[test]
fn s9_names_that_nobody_may_have_cannot_sign_in() {
    let served = Served::claimed();
    for name in ["root", "daemon", "Ada", "../ada"] {
        let body = format!(r#"{{"account":"{name}","password":"{PASSWORD}"}}"#);
        let status = served.ask("POST", "/api/session").json(&body).send().status;
        assert_eq!(status, 401, "{name}");
    }
}

#[test]
fn s10_only_the_exact_token_opens() {
    let served = Served::claimed();
    let token = served.owner_token();
    let status = |authorization: String| {
        served
            .ask("GET", "/blobs")
            .header("Authorization", authorization)
            .send()
            .status
    };
    assert_eq!(status(format!("Bearer {token}")), 200);
    let basic = data_encoding::BASE64.encode(format!("anyone:{token}").as_bytes());
    assert_eq!(status(format!("Basic {basic}")), 200);
    for place in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        // One bit that leaves a character a header may have.
        bytes[place] ^= 1;
        let flipped = String::from_utf8(bytes).unwrap();
        assert_eq!(status(format!("Bearer {flipped}")), 401, "bit {place}");
        assert_eq!(
            status(format!("Bearer {}", &token[..place])),
            401,
            "cut at {place}"
        );
    }
    let other = Served::claimed();
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.";
    for wrong in [
        format!("Bearer {}", other.owner_token()),
        format!("Bearer {none}"),
        format!("Bearer {token}A"),
        format!("Bearer {token} {token}"),
        format!("Basic {token}"),
        format!(
            "Basic {}",
            data_encoding::BASE64.encode(format!("ada:{PASSWORD}").as_bytes())
        ),
        token.clone(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
    ] {
        assert_eq!(status(wrong.clone()), 401, "{wrong}");
    }
    let twice = served.ask("GET", "/blobs").bearer(&token).bearer(&token).send();
    assert_eq!(twice.status, 401);
    for file in ["node.db", "node.db-wal"] {
        let dump = std::fs::read(served.dir.path().join(file)).unwrap_or_default();
        assert!(!dump.windows(token.len()).any(|window| window == token.as_bytes()));
    }
}

#[test]
fn s10_a_revoked_token_closes_what_is_open() {
    let served = Served::claimed();
    let (mine, token) = (served.owner_token(), served.token(&[Scope::Read]));
    let mut stream = TcpStream::connect(served.plain).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let wire = served.ask("GET", "/api/events").bearer(&token).wire();
    stream.write_all(&wire).unwrap();
    let mut first = [0; 1024];
    assert!(stream.read(&mut first).unwrap() > 0);
    let listed = served.ask("GET", "/api/tokens").bearer(&mine).send().json();
    let tokens = listed["tokens"].as_array().unwrap();
    let id = tokens
        .iter()
        .find(|token| token["scopes"] == serde_json::json!(["read"]))
        .map(|token| token["id"].as_str().unwrap().to_owned())
        .unwrap();
    let revoked = served
        .ask("DELETE", &format!("/api/tokens/{id}"))
        .bearer(&mine)
        .send();
    assert_eq!(revoked.status, 204);
    // What happens after the answer is told to those who still may: not one event of it comes through here.
    let id = served.put(b"after the revocation");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest);
    assert!(!rest.contains(&id), "{rest}");
}

#[test]
fn s11_a_session_cookie_is_new_strict_and_ends_with_the_password() {
    let served = Served::claimed();
    let login = format!(r#"{{"account":"ada","password":"{PASSWORD}"}}"#);
    let planted = "refuge=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let plain = served
        .ask("POST", "/api/session")
        .header("Cookie", planted)
        .json(&login)
        .send();
    let cookie = plain.header("set-cookie").to_owned();
    assert!(
        cookie.starts_with("refuge=") && !cookie.starts_with(planted),
        "{cookie}"
    );
    assert!(cookie.contains("; Path=/; HttpOnly; SameSite=Strict") && !cookie.contains("Domain"));
    let with_planted = served.ask("GET", "/api/session").header("Cookie", planted).send();
    assert_eq!(with_planted.status, 401);

    let host = served.tls.to_string();
    let wire = served
        .ask("POST", "/api/session")
        .without("Host")
        .header("Host", host)
        .json(&login);
    let (secured, _) = served.over_tls(&wire.wire());
    let over_tls = secured.header("set-cookie").to_owned();
    assert!(
        over_tls.starts_with("__Host-refuge=") && over_tls.ends_with("; Secure"),
        "{over_tls}"
    );

    let [mine, other] = [served.cookie(), served.cookie()];
    let change = format!(r#"{{"old":"{PASSWORD}","new":"another long one"}}"#);
    let changed = served
        .ask("POST", "/api/account/password")
        .header("Cookie", &mine)
        .header("Origin", served.origin())
        .json(&change)
        .send();
    assert_eq!(changed.status, 204, "{}", changed.text());
    let who = |cookie: &str| {
        served
            .ask("GET", "/api/session")
            .header("Cookie", cookie)
            .send()
            .status
    };
    assert_eq!((who(&mine), who(&other)), (200, 401));
    let out = served
        .ask("DELETE", "/api/session")
        .header("Cookie", &mine)
        .header("Origin", served.origin())
        .send();
    assert_eq!((out.status, who(&mine)), (204, 401));
}
