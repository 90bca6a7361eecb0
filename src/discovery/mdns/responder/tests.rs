//! What the announcing half does, without a network.

use super::*;

const LINK: u32 = 2;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn services() -> Vec<Service> {
    let texts = vec!["id=x".to_owned(), "claimed=0".to_owned()];
    let service = |kind, port| Service {
        kind,
        port,
        texts: texts.clone(),
    };
    vec![service("_refuge", 443), service("_http", 80)]
}

fn link(index: u32, last: u8) -> Link {
    Link {
        index,
        v4: vec![(Ipv4Addr::new(192, 0, 2, last), Ipv4Addr::new(255, 255, 255, 0))],
        v6: Vec::new(),
    }
}

/// A responder on one link, with what it sent there.
struct Heard {
    responder: Responder,
    sent: Vec<(Duration, Message)>,
}

impl Heard {
    fn new(node: u8, last: u8) -> Heard {
        let mut responder = Responder::new(NodeId::from_bytes([node; 32]), services(), u64::from(last));
        responder.set_links(&[link(LINK, last)], at(0));
        Heard {
            responder,
            sent: Vec::new(),
        }
    }

    /// Lets time pass.
    fn until(&mut self, end: Duration) {
        while let Some(next) = self.responder.next_due().filter(|next| *next <= end) {
            let sent = self.responder.due(next);
            self.sent.extend(sent.into_iter().map(|out| (next, out.message)));
        }
    }

    /// What it sends within `patience` of hearing `message` at `now`.
    fn answers(&mut self, message: &Message, now: Duration, patience: Duration) -> Vec<Message> {
        self.until(now);
        let before = self.sent.len();
        self.responder.received(LINK, message, now);
        self.until(now + patience);
        self.sent[before..]
            .iter()
            .map(|(_, message)| message.clone())
            .collect()
    }
}

fn ask(labels: &[&str], kind: u16) -> Message {
    let name = Name::of(labels).unwrap();
    Message {
        questions: vec![Question { name, kind }],
        ..Message::default()
    }
}

fn kinds(records: &[Record]) -> Vec<u16> {
    records.iter().map(|record| record.data.kind()).collect()
}

#[test]
fn names_are_probed_for_three_times_and_announced_twice() {
    let mut heard = Heard::new(1, 1);
    heard.until(at(10_000));
    let responses: Vec<bool> = heard
        .sent
        .iter()
        .map(|(_, message)| message.is_response)
        .collect();
    assert_eq!(responses, [false, false, false, true, true]);
    let times: Vec<Duration> = heard.sent.iter().map(|(when, _)| *when).collect();
    assert!(times[0] < PROBE_GAP && times[3] < at(1000), "{times:?}");
    assert_eq!(times[4] - times[3], ANNOUNCEMENT_GAP);
    let probe = &heard.sent[0].1;
    assert_eq!(probe.questions.len(), 3, "the host and two instances");
    assert!(
        probe
            .authorities
            .iter()
            .all(|record| record.data.kind() != kind::PTR)
    );
    let told = kinds(&heard.sent[3].1.answers);
    for needed in [kind::PTR, kind::SRV, kind::TXT, kind::A] {
        assert!(told.contains(&needed), "{told:?}");
    }
}

#[test]
fn a_question_is_answered_with_what_saves_the_next_one() {
    let mut heard = Heard::new(1, 1);
    let sent = heard.answers(&ask(&["_refuge", "_tcp", "local"], kind::PTR), at(5000), at(200));
    let [answer] = &sent[..] else {
        panic!("{sent:?}");
    };
    assert_eq!(kinds(&answer.answers), [kind::PTR]);
    assert_eq!(kinds(&answer.additionals), [kind::SRV, kind::TXT, kind::A]);
    let host = heard.responder.host();
    let labels = [host.label(), "local"];
    let sent = heard.answers(&ask(&labels, kind::A), at(6000), Duration::ZERO);
    assert_eq!(
        kinds(&sent[0].answers),
        [kind::A],
        "at once, as nobody else has it"
    );
    let sent = heard.answers(&ask(&labels, kind::AAAA), at(8000), Duration::ZERO);
    assert_eq!(kinds(&sent[0].answers), [kind::NSEC], "nothing else is there");
    let sent = heard.answers(&ask(&["_printer", "_tcp", "local"], kind::PTR), at(9000), at(200));
    assert_eq!(sent, []);
}

#[test]
fn a_flood_of_one_question_is_answered_once_a_second() {
    let mut heard = Heard::new(1, 1);
    heard.until(at(5000));
    let before = heard.sent.len();
    let question = ask(&["_refuge", "_tcp", "local"], kind::PTR);
    for packet in 0..10_000 {
        let now = at(5000) + Duration::from_micros(100 * packet);
        heard.responder.received(LINK, &question, now);
        heard.until(now);
    }
    heard.until(at(6200));
    assert!(heard.sent.len() - before <= 2, "{}", heard.sent.len() - before);
}

#[test]
fn what_the_asker_knows_is_not_told_again() {
    let mut heard = Heard::new(1, 1);
    let mut question = ask(&["_refuge", "_tcp", "local"], kind::PTR);
    let sent = heard.answers(&question, at(5000), at(200));
    question.answers = sent[0].answers.clone();
    assert_eq!(heard.answers(&question, at(9000), at(200)), []);
    question.answers[0].ttl_s = OTHER_TTL_S / 2 - 1;
    assert_eq!(heard.answers(&question, at(12_000), at(200)).len(), 1);
}

/// What `node` at `last` announces once it is settled.
fn announcement(node: u8, last: u8) -> Message {
    let mut other = Heard::new(node, last);
    other.until(at(5000));
    other.sent.last().unwrap().1.clone()
}

#[test]
fn who_comes_second_takes_another_name() {
    let mut heard = Heard::new(1, 1);
    let own = heard.responder.host();
    heard.until(at(300));
    heard.responder.received(LINK, &announcement(1, 9), at(300));
    heard.until(at(5000));
    let host = heard.responder.host();
    assert_eq!(host.label(), format!("{}-2", own.label()));
    let last = &heard.sent.last().unwrap().1;
    assert!(
        last.is_response
            && last
                .answers
                .iter()
                .any(|record| record.name == Name::of(&[host.label(), "local"]).unwrap())
    );
}

#[test]
fn who_is_settled_looks_again_before_it_yields() {
    let mut heard = Heard::new(1, 1);
    let own = heard.responder.host();
    heard.until(at(5000));
    let before = heard.sent.len();
    let rival = announcement(1, 9);
    heard.responder.received(LINK, &rival, at(5000));
    heard.until(at(9000));
    assert_eq!(heard.responder.host(), own, "nobody defended it");
    assert!(
        heard.sent[before..]
            .iter()
            .take(3)
            .all(|(_, message)| !message.is_response)
    );
    heard.responder.received(LINK, &rival, at(20_000));
    heard.responder.received(LINK, &rival, at(20_100));
    assert_ne!(heard.responder.host(), own, "somebody did");
}

#[test]
fn its_own_words_are_no_conflict_even_by_another_link() {
    let mut heard = Heard::new(1, 1);
    let own = heard.responder.host();
    heard.responder.set_links(&[link(LINK, 1), link(7, 2)], at(0));
    heard.until(at(5000));
    let words: Vec<Message> = heard.sent.iter().map(|(_, message)| message.clone()).collect();
    for message in words {
        for index in [LINK, 7] {
            heard.responder.received(index, &message, at(5000));
        }
    }
    assert_eq!(heard.responder.host(), own);
    assert!(
        heard
            .responder
            .links
            .values()
            .all(|on| on.phase == Phase::Settled)
    );
}

#[test]
fn of_two_that_probe_at_once_one_keeps_the_name() {
    let (mut small, mut great) = (Heard::new(1, 1), Heard::new(1, 9));
    let own = small.responder.host();
    for tick in 0..1000 {
        let now = at(tick * 10);
        for (from, to) in [(0, 1), (1, 0)] {
            let pair = [&mut small, &mut great];
            let sent = pair[from].responder.due(now);
            let pair = [&mut small, &mut great];
            for out in sent {
                pair[to].responder.received(LINK, &out.message, now);
            }
        }
    }
    assert_eq!(great.responder.host(), own);
    assert_eq!(small.responder.host().label(), format!("{}-2", own.label()));
}

#[test]
fn who_claims_every_name_is_not_followed_through_all_of_them() {
    let mut heard = Heard::new(1, 1);
    let mut changes = 0;
    for tick in 0..6000 {
        let now = at(tick * 10);
        heard.until(now);
        let before = heard.responder.host();
        let name = Name::of(&[before.label(), "local"]).unwrap();
        let claim = Record {
            name,
            ttl_s: 120,
            is_whole: true,
            data: Data::A(Ipv4Addr::new(192, 0, 2, 66)),
        };
        let response = respond(LINK, vec![claim], Vec::new()).message;
        heard.responder.received(LINK, &response, now);
        changes += usize::from(heard.responder.host() != before);
    }
    // The first fifteen at once, then one in five seconds of the minute.
    assert!(changes <= CONFLICTS + 14, "{changes}");
    assert!(heard.sent.len() < 200, "{}", heard.sent.len());
}

#[test]
fn good_bye_takes_back_everything_and_a_new_text_is_told() {
    let mut heard = Heard::new(1, 1);
    assert_eq!(heard.responder.good_bye(), [], "nothing was said yet");
    heard.until(at(5000));
    let [good_bye] = &heard.responder.good_bye()[..] else {
        panic!("one link");
    };
    assert!(good_bye.message.answers.iter().all(|record| record.ttl_s == 0));
    assert!(good_bye.message.answers.len() >= 7);

    let mut claimed = services();
    claimed[0].texts[1] = "claimed=1".to_owned();
    let before = heard.sent.len();
    heard.responder.set_services(claimed, at(6000));
    heard.until(at(9000));
    let told = Data::Txt(vec![b"id=x".to_vec(), b"claimed=1".to_vec()]);
    assert!(
        heard.sent[before..]
            .iter()
            .all(|(_, message)| message.is_response)
    );
    assert!(
        heard.sent[before]
            .1
            .answers
            .iter()
            .any(|record| record.data == told)
    );
}

#[test]
fn a_link_that_goes_takes_its_state_with_it_and_another_address_is_announced() {
    let mut heard = Heard::new(1, 1);
    heard.until(at(5000));
    heard.responder.set_links(&[], at(5000));
    assert_eq!(heard.responder.next_due(), None);
    heard.responder.set_links(&[link(LINK, 5)], at(6000));
    heard.until(at(9000));
    let last = &heard.sent.last().unwrap().1;
    let address = Data::A(Ipv4Addr::new(192, 0, 2, 5));
    assert!(last.answers.iter().any(|record| record.data == address));
}
