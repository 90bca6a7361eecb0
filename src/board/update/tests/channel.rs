//! A box and its channel, over a real connection: what is believed, kept over restarts, fetched and told.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::UNIX_EPOCH;

use super::*;
use crate::board::update::channel::tests::{BEFORE_S, offering, pinned};
use crate::node::{ChannelSettings, ChannelTrouble, Clock, Delivery, Event, Offer, Window};

/// A server of files.
#[derive(Clone)]
struct Files {
    port: u16,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Files {
    fn new() -> Files {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let files = Files {
            port: listener.local_addr().unwrap().port(),
            files: Arc::default(),
            asked: Arc::default(),
        };
        let served = files.clone();
        // Ends with the test's process.
        thread::spawn(move || {
            for connection in listener.incoming() {
                let served = served.clone();
                thread::spawn(move || served.answer(connection.unwrap()));
            }
        });
        files
    }

    fn answer(&self, mut connection: std::net::TcpStream) {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if connection.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let found = self.files.lock().unwrap().get(&path).cloned();
        self.asked.lock().unwrap().push(path);
        let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"{}\"\r\nconnection: close\r\n\r\n",
            body.len(),
            body.len()
        );
        // Whoever asked may have heard enough.
        let _ = connection.write_all(&[head.into_bytes(), body].concat());
    }

    fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.files.lock().unwrap().insert(path.to_owned(), body.into());
    }

    fn settings(&self, automatic: bool) -> ChannelSettings {
        ChannelSettings {
            url: format!("http://127.0.0.1:{}/channel", self.port).parse().unwrap(),
            key: pinned(),
            automatic,
            window: Window::default(),
        }
    }
}

fn open(fake: &Fake) -> Node {
    let clock = Clock::from_fn(|| UNIX_EPOCH + Duration::from_secs(BEFORE_S));
    let options = node::Options::new(fake.at("node"));
    Node::open(node::Options { clock, ..options }).unwrap()
}

fn watch(fake: &Fake, node: &Node) -> Watch {
    Watch::new(
        node.clone(),
        vec!["127.0.0.1".parse().unwrap()],
        &fake.at("localtime"),
    )
}

fn updates(running: &str) -> Updates {
    Updates {
        running: version(running),
        compatible: "refuge-qemu-arm".to_owned(),
        slot: Slot::A,
        step: Step::Idle,
        refused: None,
        last: None,
        before: None,
    }
}

async fn looks(fake: &Fake, node: &Node) -> Result<Offer, ChannelTrouble> {
    match watch(fake, node).look(&updates("0.1.0")).await {
        Ok(offer) => Ok(offer),
        Err(Error::Channel(trouble)) => Err(trouble),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn s24_what_was_seen_of_a_channel_is_known_after_a_restart() {
    let (fake, files) = (Fake::new(), Files::new());
    let node = open(&fake);
    assert_eq!(looks(&fake, &node).await, Err(ChannelTrouble::Unset));
    node.channel().set(files.settings(true)).await.unwrap();
    assert!(matches!(
        looks(&fake, &node).await,
        Err(ChannelTrouble::Unreachable { .. })
    ));
    files.put("/channel", offering(7, "0.2.0", b"bundle"));
    let offer = looks(&fake, &node).await.unwrap();
    assert_eq!((offer.version, offer.size_bytes), (version("0.2.0"), 6));
    assert_eq!(
        node.channel().news().offer.unwrap().url.as_str(),
        format!("http://127.0.0.1:{}/b.raucb", files.port)
    );
    drop(node);
    files.put("/channel", offering(6, "0.3.0", b"bundle"));
    let node = open(&fake);
    let older = Err(ChannelTrouble::Older { serial: 6, seen: 7 });
    assert_eq!(looks(&fake, &node).await, older);
    assert!(node.channel().news().trouble.unwrap().contains("number 6"));
    // Nor does it help to have it set anew.
    node.channel().remove().await.unwrap();
    assert_eq!(looks(&fake, &node).await, Err(ChannelTrouble::Unset));
    node.channel().set(files.settings(true)).await.unwrap();
    assert_eq!(looks(&fake, &node).await, older);
    files.put("/channel", offering(8, "0.3.0", b"bundle"));
    assert_eq!(looks(&fake, &node).await.unwrap().version, version("0.3.0"));
}

#[tokio::test]
async fn s24_a_file_without_an_end_is_not_read() {
    let (fake, files) = (Fake::new(), Files::new());
    let node = open(&fake);
    node.channel().set(files.settings(true)).await.unwrap();
    files.put("/channel", vec![b'x'; 100_000]);
    assert!(matches!(
        looks(&fake, &node).await,
        Err(ChannelTrouble::TooLarge { .. })
    ));
}

#[tokio::test]
async fn addresses_that_nobody_listed_are_not_asked() {
    let (fake, files) = (Fake::new(), Files::new());
    let node = open(&fake);
    node.channel().set(files.settings(true)).await.unwrap();
    let mut watch = Watch::new(node.clone(), Vec::new(), &fake.at("localtime"));
    let looked = watch.look(&updates("0.1.0")).await;
    assert!(matches!(
        looked,
        Err(Error::Channel(ChannelTrouble::Unreachable { .. }))
    ));
    assert_eq!(files.asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn s24_two_weeks_without_a_file_that_can_be_trusted_are_told() {
    let (fake, files) = (Fake::new(), Files::new());
    let days = Arc::new(Mutex::new(0));
    let told = Arc::clone(&days);
    let clock = Clock::from_fn(move || {
        UNIX_EPOCH + Duration::from_secs(BEFORE_S - 40 * 86_400 + *told.lock().unwrap() * 86_400)
    });
    let options = node::Options::new(fake.at("node"));
    let node = Node::open(node::Options { clock, ..options }).unwrap();
    node.channel().set(files.settings(true)).await.unwrap();
    let reasons = async |day| {
        *days.lock().unwrap() = day;
        let _ = looks(&fake, &node).await;
        node.health().report().reasons
    };
    assert_eq!(reasons(14).await, Vec::<String>::new());
    let said = reasons(15).await;
    assert!(said.len() == 1 && said[0].contains("15 days"), "{said:?}");
    files.put("/channel", offering(7, "0.2.0", b"bundle"));
    assert_eq!(reasons(16).await, Vec::<String>::new());
}

#[tokio::test]
async fn versions_that_the_box_came_back_from_are_known_after_a_restart() {
    let fake = Fake::new();
    let node = open(&fake);
    let failed = node::Outcome {
        version: version("0.2.0"),
        reasons: vec!["no store".to_owned()],
    };
    let by_itself = Updates {
        last: Some(failed),
        ..updates("0.1.0")
    };
    watch::note_left(&node, &by_itself).await;
    let by_hand = Updates {
        before: Some(version("0.3.0")),
        ..updates("0.1.0")
    };
    watch::note_left(&node, &by_hand).await;
    let usual = Updates {
        before: Some(version("0.0.9")),
        ..updates("0.1.0")
    };
    watch::note_left(&node, &usual).await;
    drop(node);
    assert_eq!(open(&fake).channel().left(), [version("0.2.0"), version("0.3.0")]);
}

/// Runs the node's side of updates beside what `owner` does.
async fn beside(fake: &Fake, node: &Node, owner: impl Future<Output = ()>) {
    let socket = fake.at("updater.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let system = fake.system.clone();
    // Ends with the test's process.
    thread::spawn(move || {
        for connection in listener.incoming() {
            let system = system.clone();
            thread::spawn(move || answer_for(connection.unwrap(), USER(), &system));
        }
    });
    let reach = Reach {
        updater: socket,
        helper: fake.at("helper.sock"),
        allowed: vec!["127.0.0.1".parse().unwrap()],
        localtime: fake.at("localtime"),
    };
    let mut desk = node.board().orders().unwrap();
    let (orders, taken) = mpsc::channel(1);
    let passed_on = async {
        while let Some(asked) = desk.recv().await {
            orders.send(asked).await.unwrap();
        }
    };
    tokio::select! {
        _ = Updating::run(node.clone(), reach, taken) => panic!("it goes on"),
        () = passed_on => panic!("it goes on"),
        () = owner => {}
    }
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_channel_offers_is_fetched_announced_and_installed_when_asked_for() {
    let (fake, files) = (Fake::new(), Files::new());
    let node = open(&fake);
    let mut events = node.events().subscribe(None);
    files.put("/channel", offering(7, "0.2.0", &bundle("0.2.0")));
    files.put("/b.raucb", bundle("0.2.0"));
    let owner = async {
        until(|| node.board().updates().is_some()).await;
        node.channel().set(files.settings(true)).await.unwrap();
        until(|| files.asked.lock().unwrap().contains(&"/b.raucb".to_owned())).await;
        let planned = loop {
            if let Delivery::Event(_, Event::UpdatePlanned { version, at }) = events.next().await {
                break (version, at);
            }
        };
        assert_eq!(planned.0, version("0.2.0"));
        assert!(planned.1 >= node.channel().now() + Duration::from_secs(3600));
        assert_eq!(fake.text("slot"), "", "not before it was announced");
        let looked = node.board().ask(Order::Look).await.unwrap();
        let Done::Offer(offer) = looked else {
            panic!("{looked:?}");
        };
        let wanted = Installation {
            source: Source::from(*offer),
            may_be_older: false,
        };
        node.board().ask(Order::Install(wanted)).await.unwrap();
        until(|| {
            node.board()
                .updates()
                .is_some_and(|updates| updates.step == Step::Restarting)
        })
        .await;
        assert_eq!(fake.text("slot").as_bytes(), bundle("0.2.0"));
    };
    beside(&fake, &node, owner).await;
}

#[tokio::test]
async fn s24_a_bundle_that_is_not_what_the_channel_says_is_not_installed() {
    let (fake, files) = (Fake::new(), Files::new());
    let node = open(&fake);
    files.put("/channel", offering(7, "0.2.0", &bundle("0.2.0")));
    // As long, and another.
    files.put("/b.raucb", bundle("0.3.0"));
    let owner = async {
        until(|| node.board().updates().is_some()).await;
        node.channel().set(files.settings(true)).await.unwrap();
        until(|| node.channel().news().trouble.is_some()).await;
        let news = node.channel().news();
        assert!(news.trouble.is_some_and(|trouble| trouble.contains("blake3;")));
        let wanted = Installation {
            source: Source::from(news.offer.unwrap()),
            may_be_older: false,
        };
        node.board().ask(Order::Install(wanted)).await.unwrap();
        until(|| {
            node.board()
                .updates()
                .is_some_and(|updates| updates.refused.is_some())
        })
        .await;
        assert_eq!(fake.text("slot") + &fake.text("boot-state"), "");
        assert!(!fake.at("node/bundles/next.raucb").exists());
    };
    beside(&fake, &node, owner).await;
}

#[tokio::test]
async fn where_the_owner_wants_it_so_nothing_is_fetched() {
    let (fake, files) = (Fake::new(), Files::new());
    let node = open(&fake);
    files.put("/channel", offering(7, "0.2.0", &bundle("0.2.0")));
    let owner = async {
        until(|| node.board().updates().is_some()).await;
        node.channel().set(files.settings(false)).await.unwrap();
        until(|| node.channel().news().offer.is_some()).await;
        // Whatever else it would do is done before the next order.
        node.board().ask(Order::Look).await.unwrap();
        assert_eq!(node.channel().news().planned, None);
        assert!(files.asked.lock().unwrap().iter().all(|path| path == "/channel"));
    };
    beside(&fake, &node, owner).await;
}

/// A stick is brought by hand and has no channel on it: what the channel said counts for it as well.
#[tokio::test]
async fn s24_what_is_older_than_the_channel_has_is_installed_from_a_stick_by_the_owners_word_alone() {
    let (fake, files) = (Fake::new(), Files::new());
    let on_stick = [("old.raucb", bundle("0.2.0")), ("new.raucb", bundle("0.3.0"))];
    serve_stick(fake.at("helper.sock"), &on_stick);
    let stick = |name: &str| format!("usb:sda1/{name}").parse::<Source>().unwrap();
    files.put("/channel", offering(7, "0.3.0", b"bundle"));
    let node = open(&fake);
    node.channel().set(files.settings(false)).await.unwrap();
    looks(&fake, &node).await.unwrap();
    assert_eq!(node.channel().newest(), Some(version("0.3.0")));
    // Removed it says nothing; set anew it has not forgotten, nor after a restart, whoever shows it an older file.
    node.channel().remove().await.unwrap();
    assert_eq!(node.channel().newest(), None);
    node.channel().set(files.settings(false)).await.unwrap();
    drop(node);
    files.put("/channel", offering(6, "0.1.5", b"bundle"));
    let node = open(&fake);
    assert!(looks(&fake, &node).await.is_err());
    let owner = async {
        until_told(&node, |_| true).await;
        let withheld = Some(UpdateTrouble::Withheld {
            version: version("0.2.0"),
            channel: version("0.3.0"),
        });
        assert_eq!(install(&node, stick("old.raucb"), false).await, withheld);
        assert_eq!(fake.text("slot") + &fake.text("boot-state"), "");
        assert_eq!(install(&node, stick("new.raucb"), false).await, None);
    };
    beside(&fake, &node, owner).await;
    assert_eq!(fake.text("slot").as_bytes(), bundle("0.3.0"));
    // Whoever means it, on another box.
    let fake = Fake::new();
    serve_stick(fake.at("helper.sock"), &on_stick);
    let node = open(&fake);
    node.channel().set(files.settings(false)).await.unwrap();
    files.put("/channel", offering(8, "0.3.0", b"bundle"));
    looks(&fake, &node).await.unwrap();
    let owner = async {
        until_told(&node, |_| true).await;
        assert_eq!(install(&node, stick("old.raucb"), true).await, None);
    };
    beside(&fake, &node, owner).await;
    assert_eq!(fake.text("slot").as_bytes(), bundle("0.2.0"));
}
