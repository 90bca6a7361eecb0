//! S5, S6, S8, S12: what a browser may be made to do, and what it shows.

use refuge::files::{BackupOptions, Progress, backup};
use refuge::id::StoreName;

use super::routes;
use crate::served::{Served, exchange};

#[test]
fn s5_a_foreign_host_is_turned_away_before_anything_else() {
    let served = Served::claimed();
    let token = served.owner_token();
    let port = served.plain.port();
    let short = served.node.identity().host_name().to_owned();
    let foreign: Vec<String> = [
        "127.0.0.1.evil.com",
        "127.0.0.1.",
        "127.0.0.2",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.0.0.01",
        "[::1]",
        "[::ffff:7f00:1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "::1",
        "LOCALHOST",
        "Localhost",
        "localhost.",
        "localhost.localdomain",
        "evil.localhost",
        "user@localhost",
        "user:pass@127.0.0.1",
        "127.0.0.1@evil.com",
        "evil.com",
        "refuge.local",
        "refuge-aaaaaa.local",
        "box.example.net",
        "169.254.169.254",
        "127.0.0.1%00",
        "127.0.0.1#",
        "127.0.0.1/",
        "xn--80ak6aa92e.com",
    ]
    .iter()
    .map(|host| format!("{host}:{port}"))
    .chain([
        "127.0.0.1".to_owned(),
        "127.0.0.1:".to_owned(),
        format!("127.0.0.1:0{port}"),
        format!("127.0.0.1:{}", port ^ 1),
        format!("127.0.0.1:{port}:{port}"),
        format!("127.0.0.1 :{port}"),
        format!("localhost:{port},evil.com"),
        short.to_uppercase() + &format!(":{port}"),
        format!("{short}.:{port}"),
        "box.example.net:9444".to_owned(),
    ])
    .collect();
    assert!(foreign.len() >= 40);
    for host in &foreign {
        for authorization in [String::new(), format!("Authorization: Bearer {token}\r\n")] {
            let wire =
                format!("GET /blobs HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: close\r\n\r\n");
            let status = exchange(served.plain, wire.as_bytes(), false).status;
            assert!(matches!(status, 400 | 421), "{host}: {status}");
        }
    }
    for lines in [
        "GET /blobs HTTP/1.1\r\n".to_owned(),
        format!("GET /blobs HTTP/1.1\r\nHost: localhost:{port}\r\nHost: localhost:{port}\r\n"),
        "GET /blobs HTTP/1.1\r\nHost:\r\n".to_owned(),
        format!("GET http://evil.com/blobs HTTP/1.1\r\nHost: localhost:{port}\r\n"),
        "GET http://evil.com/blobs HTTP/1.1\r\nHost: evil.com\r\n".to_owned(),
    ] {
        let wire = format!("{lines}Authorization: Bearer {token}\r\nConnection: close\r\n\r\n");
        let status = exchange(served.plain, wire.as_bytes(), false).status;
        assert!(matches!(status, 400 | 421), "{lines}: {status}");
    }
    for host in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("{short}:{port}"),
        "box.example.net:9443".to_owned(),
    ] {
        let own = served
            .ask("GET", "/blobs")
            .without("Host")
            .header("Host", &host)
            .bearer(&token);
        assert_eq!(own.send().status, 200, "{host}");
    }
}

#[test]
fn s6_nothing_changes_that_our_own_page_did_not_ask_for() {
    let served = Served::claimed();
    let cookie = served.cookie();
    served.put(b"kept");
    let routes = routes(&served);
    let before = state(&served);
    for route in routes.into_iter().filter(|route| route.changes_state()) {
        let ask = || route.ask(&served).header("Cookie", &cookie);
        let own = served.origin();
        let vectors = [
            (
                "foreign origin",
                ask().header("Origin", "https://evil.example").json("{}"),
            ),
            ("origin null", ask().header("Origin", "null").json("{}")),
            ("neither origin nor site", ask().json("{}")),
            (
                "another site",
                ask().header("Sec-Fetch-Site", "cross-site").json("{}"),
            ),
            (
                "same site only",
                ask().header("Sec-Fetch-Site", "same-site").json("{}"),
            ),
            (
                "https of the same name",
                ask().header("Origin", own.replace("http:", "https:")).json("{}"),
            ),
            ("text", ask().header("Origin", &own).body("text/plain", "{}")),
            (
                "multipart",
                ask()
                    .header("Origin", &own)
                    .body("multipart/form-data; boundary=x", "--x--"),
            ),
            ("foreign form", {
                let form = ask().header("Origin", "https://evil.example");
                form.body("application/x-www-form-urlencoded", "a=b")
            }),
        ];
        for (vector, ask) in vectors {
            // Public routes without a form take no right from the cookie.
            let reply = ask.send();
            let is_login =
                matches!(route.path.as_str(), "/api/claim" | "/api/session") && route.method == "POST";
            let refused = matches!(reply.status, 403 | 415) || (is_login && reply.status == 400);
            assert!(refused, "{route:?}, {vector}: {} {}", reply.status, reply.text());
        }
    }
    assert_eq!(state(&served), before);
    let own = served
        .ask("POST", "/blobs")
        .header("Cookie", &cookie)
        .header("Origin", served.origin())
        .body("application/octet-stream", "new")
        .send();
    assert_eq!(own.status, 201);
}

fn state(served: &Served) -> String {
    let stores: Vec<_> = served
        .node
        .stores()
        .list()
        .into_iter()
        .map(|info| (info.name, info.status.blobs, info.status.plain_bytes))
        .collect();
    format!("{stores:?} {:?}", served.node.tokens().list(None).len())
}

#[test]
fn s8_no_origin_is_let_in() {
    let served = Served::claimed();
    let token = served.owner_token();
    let origins = [
        "https://evil.example",
        "http://evil.example",
        "null",
        "http://localhost",
        "https://localhost:3000",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "file://",
        "chrome-extension://abc",
        "moz-extension://abc",
        "https://refuge.local",
        "https://box.example.net:9443",
        "https://box.example.net",
        "http://[::1]",
        "https://a.b.c.d",
        "https://evil.example.",
        "HTTPS://EVIL.EXAMPLE",
        "https://evil.example:443",
        "capacitor://localhost",
        "*",
    ];
    for origin in origins {
        for (method, target) in [
            ("GET", "/blobs"),
            ("OPTIONS", "/blobs"),
            ("OPTIONS", "/uploads"),
            ("GET", "/"),
            ("GET", "/db/notes"),
            ("OPTIONS", "/db/notes/_bulk_docs"),
        ] {
            let reply = served
                .ask(method, target)
                .bearer(&token)
                .header("Origin", origin)
                .header("Access-Control-Request-Method", "PUT")
                .send();
            let cors = reply
                .headers
                .keys()
                .find(|name| name.starts_with("access-control"));
            assert_eq!(cors, None, "{origin} {method} {target}");
        }
    }
}

#[test]
fn s12_every_answer_tells_browsers_to_be_careful() {
    let served = Served::claimed();
    let token = served.owner_token();
    let id = served.put(b"<script>alert(1)</script>");
    let mut asks: Vec<_> = routes(&served)
        .into_iter()
        .flat_map(|route| {
            let stranger = route.ask(&served);
            let owner = (route.path != "/api/events").then(|| route.ask(&served).bearer(&token));
            std::iter::once(stranger).chain(owner)
        })
        .collect();
    asks.push(served.ask("GET", "/nothing/here"));
    asks.push(served.ask("GET", &format!("/blobs/{id}")).bearer(&token));
    for ask in asks {
        let wire = String::from_utf8_lossy(&ask.wire())
            .lines()
            .next()
            .unwrap()
            .to_owned();
        let reply = ask.send();
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{wire}");
        assert_eq!(reply.header("referrer-policy"), "same-origin", "{wire}");
        let csp = reply.header("content-security-policy");
        assert!(
            csp.contains("default-src 'none'") && csp.contains("frame-ancestors 'none'"),
            "{wire}: {csp}"
        );
        assert!(!csp.contains("unsafe") && !csp.contains('*'), "{wire}: {csp}");
        assert!(!reply.header("cache-control").is_empty(), "{wire}");
        assert_eq!(reply.header("strict-transport-security"), "", "{wire}");
    }
    let blob = served.ask("GET", &format!("/blobs/{id}")).bearer(&token).send();
    assert_eq!(blob.header("content-disposition"), "attachment");
    assert_eq!(blob.header("content-type"), "application/octet-stream");
    assert!(blob.header("content-security-policy").contains("sandbox"));
}

#[test]
fn s12_what_users_named_is_shown_as_text() {
    let served = Served::claimed();
    let cookie = served.cookie();
    let payloads = [
        "<script>alert(1)<!--",
        "\"><img src=x onerror=alert(1)>",
        "'><svg onload=alert(1)>",
        "<iframe srcdoc=x>",
        "javascript:alert(1)",
        "</title><script>",
        "&lt;script&gt;",
        "{{7*7}}",
        "<style>*{}",
        "\u{202e}gpj.exe",
    ];
    let folder = tempfile::tempdir().unwrap();
    for payload in payloads {
        let label = served
            .ask("POST", "/api/tokens")
            .bearer(&served.owner_token())
            .json(&serde_json::json!({"label": payload, "scopes": ["read"]}).to_string())
            .send();
        assert_eq!(label.status, 200 + 1, "{}", label.text());
        std::fs::write(folder.path().join(payload.replace('/', "_")), payload).unwrap();
        std::os::unix::fs::symlink(
            payload,
            folder.path().join(format!("link {}", payload.replace('/', "_"))),
        )
        .unwrap();
    }
    let repository = served.node.repository(&StoreName::main()).unwrap();
    let options = BackupOptions {
        host: payloads[1].to_owned(),
        ..BackupOptions::default()
    };
    let name = "documents".parse().unwrap();
    backup(&repository, folder.path(), &name, &options, &Progress::new()).unwrap();
    for target in ["/", "/tokens", "/account", "/browse?ref=documents"] {
        let page = served.ask("GET", target).header("Cookie", &cookie).send();
        assert_eq!(page.status, 200, "{target}: {}", page.text());
        let text = page.text();
        for raw in [
            "<script>",
            "<img src=x",
            "<svg",
            "<iframe",
            "<style",
            "onerror=alert(1)>",
            "href=\"javascript",
        ] {
            assert!(!text.contains(raw), "{target} shows {raw}");
        }
        assert_eq!(text.matches("<script").count(), 1, "only the page's own");
        assert!(
            !text.contains(" style=") && !text.contains(" onclick="),
            "nothing inline"
        );
    }
}
