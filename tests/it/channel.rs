//! The channel of a box, as its owner sets it and reads of it: by programs, on the page and by the command line.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use refuge::id::BlobId;
use refuge::node::{
    BundleDigest, ChannelNews, ChannelTrouble, Done, Error, Installation, Offer, Order, Slot, Source, Step,
    Updates,
};

use crate::served::{Reply, Served};
use crate::support::{Ran, refuge};

const URL: &str = "https://updates.example.org/refuge/channel";
const KEY: &str = "ed25519;ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";

fn offer(version: &str) -> Offer {
    Offer {
        version: version.parse().unwrap(),
        url: "https://updates.example.org/refuge/b.raucb".parse().unwrap(),
        size_bytes: 36_700_160,
        blob: BlobId::of(b"bundle"),
    }
}

/// A node whose board edge answers what a channel has, and notes what it is asked to install.
struct Owned {
    served: Served,
    token: String,
    answer: Arc<Mutex<Result<Offer, ChannelTrouble>>>,
    installed: Arc<Mutex<Vec<Installation>>>,
}

impl Owned {
    fn new() -> Owned {
        let served = Served::claimed();
        let token = served.owner_token();
        let answer = Arc::new(Mutex::new(Ok(offer("0.2.0"))));
        let installed = Arc::<Mutex<Vec<Installation>>>::default();
        let (told, noted) = (Arc::clone(&answer), Arc::clone(&installed));
        let mut orders = served.node.board().orders().unwrap();
        // Ends with the node.
        std::thread::spawn(move || {
            while let Some(asked) = orders.blocking_recv() {
                let done = match asked.order.clone() {
                    Order::Look => {
                        let told = told.lock().unwrap().clone();
                        told.map(|offer| Done::Offer(offer.into())).map_err(Error::from)
                    }
                    Order::Install(wanted) => {
                        noted.lock().unwrap().push(wanted);
                        Ok(Done::Done)
                    }
                    _ => Ok(Done::Done),
                };
                asked.answer(done);
            }
        });
        served.node.board().tell_updates(Updates {
            running: "0.1.0".parse().unwrap(),
            compatible: "refuge-qemu-arm".to_owned(),
            slot: Slot::A,
            step: Step::Idle,
            refused: None,
            last: None,
            before: None,
        });
        Owned {
            served,
            token,
            answer,
            installed,
        }
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> Reply {
        let ask = self.served.ask(method, target).bearer(&self.token);
        if body.is_empty() {
            ask.send()
        } else {
            ask.json(body).send()
        }
    }

    fn set(&self) {
        let body = format!(r#"{{"url":"{URL}","key":"{KEY}"}}"#);
        assert_eq!(self.ask("PUT", "/api/update/channel", &body).status, 204);
    }

    fn channel(&self) -> serde_json::Value {
        self.ask("GET", "/api/update", "").json()["channel"].clone()
    }

    fn run(&self, words: &[&str]) -> Ran {
        let mut command = refuge();
        command.args(words).arg("--node").arg(self.served.origin());
        Ran::of(command.env("REFUGE_TOKEN", &self.token)).unwrap()
    }

    fn wants(&self) -> Source {
        let offer = offer("0.2.0");
        Source::Url {
            url: offer.url,
            expected: Some(BundleDigest {
                blob: offer.blob,
                size_bytes: offer.size_bytes,
            }),
        }
    }
}

#[test]
fn a_channel_is_set_shown_and_removed_by_programs() {
    let owned = Owned::new();
    assert!(owned.channel().is_null());
    for (body, wrong) in [
        (format!(r#"{{"url":"{URL}","key":"ed25519;00"}}"#), "key"),
        (format!(r#"{{"url":"updates.example.org","key":"{KEY}"}}"#), "url"),
        (
            format!(r#"{{"url":"{URL}","key":"{KEY}","window":"02:00"}}"#),
            "window",
        ),
    ] {
        let refused = owned.ask("PUT", "/api/update/channel", &body);
        assert_eq!(refused.status, 400);
        let reason = refused.json()["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with(wrong), "{reason}");
    }
    assert!(owned.channel().is_null());
    owned.set();
    let channel = owned.channel();
    assert_eq!((&channel["url"], &channel["key"]), (&URL.into(), &KEY.into()));
    assert_eq!(
        (&channel["automatic"], &channel["window"]),
        (&true.into(), &"02:00-05:00".into())
    );
    let at = owned.served.node.channel().now() + Duration::from_secs(7200);
    owned.served.node.channel().tell(ChannelNews {
        offer: Some(offer("0.2.0")),
        planned: Some(at),
        ..ChannelNews::default()
    });
    let channel = owned.channel();
    assert_eq!(
        (&channel["offer"]["version"], &channel["offer"]["newer"]),
        (&"0.2.0".into(), &true.into())
    );
    assert!(channel["planned"].as_str().unwrap().ends_with('Z'));
    assert_eq!(owned.ask("DELETE", "/api/update/channel", "").status, 204);
    assert!(owned.channel().is_null());
    let without_board = Served::claimed();
    let token = without_board.owner_token();
    let body = format!(r#"{{"url":"{URL}","key":"{KEY}"}}"#);
    let refused = without_board
        .ask("PUT", "/api/update/channel")
        .bearer(&token)
        .json(&body)
        .send();
    assert_eq!((refused.status, refused.code()), (409, "no_board".to_owned()));
}

#[test]
fn what_the_channel_has_is_installed_where_nothing_is_named_and_it_is_newer() {
    let owned = Owned::new();
    owned.set();
    let offered = owned.ask("POST", "/api/update/channel/check", "");
    assert_eq!((offered.status, &offered.json()["newer"]), (200, &true.into()));
    assert_eq!(owned.ask("POST", "/api/update/install", "{}").status, 202);
    *owned.answer.lock().unwrap() = Ok(offer("0.1.0"));
    let refused = owned.ask("POST", "/api/update/install", "{}");
    assert_eq!((refused.status, refused.code()), (409, "not_newer".to_owned()));
    *owned.answer.lock().unwrap() = Err(ChannelTrouble::Expired);
    for target in ["/api/update/install", "/api/update/channel/check"] {
        let body = if target.ends_with("install") { "{}" } else { "" };
        let refused = owned.ask("POST", target, body);
        assert_eq!((refused.status, refused.code()), (409, "bad_channel".to_owned()));
    }
    let installed = owned.installed.lock().unwrap();
    let sources: Vec<_> = installed.iter().map(|wanted| wanted.source.clone()).collect();
    assert_eq!(sources, [owned.wants()]);
}

#[test]
fn the_page_says_what_comes_and_when_and_its_forms_set_the_channel() {
    let owned = Owned::new();
    let cookie = owned.served.cookie();
    let page = || {
        owned
            .served
            .ask("GET", "/")
            .header("Cookie", &cookie)
            .send()
            .text()
    };
    let send = |target: &str, fields: &str| {
        let ask = owned
            .served
            .ask("POST", target)
            .header("Origin", owned.served.origin());
        ask.body("application/x-www-form-urlencoded", fields)
            .header("Cookie", &cookie)
            .send()
    };
    let key = KEY.replace(';', "%3B");
    let wrong = send(
        "/update/channel",
        &format!("url=x&key={key}&window=02%3A00-05%3A00"),
    );
    assert_eq!(wrong.status, 400);
    let set = send(
        "/update/channel",
        &format!("url={URL}&key={key}&automatic=yes&window=23%3A00-01%3A00"),
    );
    assert_eq!(set.status, 303);
    assert_eq!(owned.channel()["window"], "23:00-01:00");
    let at = owned.served.node.channel().now() + Duration::from_secs(2 * 3600 - 60);
    owned.served.node.channel().tell(ChannelNews {
        offer: Some(offer("0.2.0")),
        planned: Some(at),
        ..ChannelNews::default()
    });
    let text = page();
    assert!(
        text.contains("Version 0.2.0") && text.contains("in about 2 h"),
        "{text}"
    );
    assert_eq!(send("/update/install", "channel=yes").status, 303);
    assert_eq!(owned.installed.lock().unwrap()[0].source, owned.wants());
    // Without the box ticked it only tells.
    send(
        "/update/channel",
        &format!("url={URL}&key={key}&window=02%3A00-05%3A00"),
    );
    assert_eq!(owned.channel()["automatic"], false);
    owned.served.node.channel().tell(ChannelNews {
        offer: Some(offer("0.2.0")),
        trouble: Some("<b>no</b>".to_owned()),
        ..ChannelNews::default()
    });
    let text = page();
    assert!(
        text.contains("installed when you say so") && text.contains("&lt;b&gt;no"),
        "{text}"
    );
    assert_eq!(send("/update/channel/remove", "").status, 303);
    assert!(owned.channel().is_null());
}

#[test]
fn the_command_line_asks_the_channel_and_its_exit_codes_say_what_there_is() {
    let owned = Owned::new();
    let unset = owned.run(&["update", "channel"]);
    assert_eq!(unset.status.code(), Some(3), "{unset:?}");
    let set = owned.run(&[
        "update",
        "channel",
        "set",
        URL,
        KEY,
        "--no-automatic",
        "--window",
        "01:00-04:00",
    ]);
    assert_eq!(set.status.code(), Some(0), "{set:?}");
    let shown = owned.run(&["update", "channel"]);
    assert!(
        shown.stdout.contains(URL) && shown.stdout.contains("not installed by itself"),
        "{shown:?}"
    );
    let newer = owned.run(&["update", "check"]);
    assert_eq!(newer.status.code(), Some(0), "{newer:?}");
    assert!(newer.stdout.contains("0.2.0"), "{newer:?}");
    *owned.answer.lock().unwrap() = Ok(offer("0.1.0"));
    assert_eq!(owned.run(&["update", "check"]).status.code(), Some(3));
    *owned.answer.lock().unwrap() = Err(ChannelTrouble::Older { serial: 6, seen: 7 });
    let refused = owned.run(&["update", "check"]);
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    assert!(refused.stderr.contains("number 6"), "{refused:?}");
    let reason = "timed out".to_owned();
    *owned.answer.lock().unwrap() = Err(ChannelTrouble::Unreachable { reason });
    assert_eq!(owned.run(&["update", "check"]).status.code(), Some(1));
    *owned.answer.lock().unwrap() = Ok(offer("0.2.0"));
    let begun = owned.run(&["update", "install", "--no-wait"]);
    assert_eq!(begun.status.code(), Some(0), "{begun:?}");
    assert_eq!(owned.installed.lock().unwrap()[0].source, owned.wants());
    assert_eq!(owned.run(&["update", "channel", "remove"]).status.code(), Some(0));
}
