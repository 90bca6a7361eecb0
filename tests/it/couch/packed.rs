//! Attachments that come packed by gzip: kept so, unpacked for who does not take them so, and never more than they should hold.

use data_encoding::BASE64;
use md5::{Digest, Md5};
use serde_json::json;

use super::{Couch, outcome};
use crate::served::Reply;

/// A member as RFC 1952 draws it.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    packed.extend(miniz_oxide::deflate::compress_to_vec(bytes, 6));
    packed.extend(crc32fast::hash(bytes).to_le_bytes());
    packed.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    packed
}

fn digest(bytes: &[u8]) -> String {
    format!("md5-{}", BASE64.encode(&Md5::digest(bytes)))
}

impl Couch {
    fn put_packed(&self, name: &str, coding: &str, bytes: &[u8]) -> Reply {
        let ask = self
            .served
            .ask("PUT", &format!("/db/notes/doc/{name}"))
            .bearer(&self.token);
        ask.header("Content-Encoding", coding)
            .body("text/plain", bytes)
            .send()
    }

    fn get_taking(&self, target: &str, name: &str, value: &str) -> Reply {
        self.served
            .ask("GET", target)
            .bearer(&self.token)
            .header(name, value)
            .send()
    }
}

#[test]
fn what_comes_packed_is_kept_so_and_told_as_couchdb_tells_it() {
    let couch = Couch::new();
    let text = "a list of things. ".repeat(20_000);
    let packed = gzip(text.as_bytes());
    assert_eq!(couch.put_packed("list", "gzip", &packed).status, 201);

    let target = "/db/notes/doc/list";
    let plain = couch.send("GET", target, None);
    assert!(plain.text() == text && plain.header("content-encoding").is_empty());
    assert_eq!(plain.header("accept-ranges"), "none");
    let none = couch.get_taking(target, "Accept-Encoding", "br, gzip;q=0");
    assert_eq!(none.text(), text);
    let taken = couch.get_taking(target, "Accept-Encoding", "br, gzip");
    assert_eq!(
        (taken.body.as_slice(), taken.header("content-encoding")),
        (packed.as_slice(), "gzip")
    );
    let etag = taken.header("etag").to_owned();
    assert_eq!(couch.get_taking(target, "If-None-Match", &etag).status, 304);

    let (kept, whole) = (packed.len(), text.len());
    let shown = |query: &str| {
        couch.send("GET", &format!("/db/notes/doc{query}"), None).json()["_attachments"]["list"].clone()
    };
    let stub = json!({"content_type": "text/plain", "revpos": 1, "digest": digest(&packed), "length": whole, "stub": true});
    assert_eq!(shown(""), stub);
    let mut told = stub.clone();
    told["encoding"] = json!("gzip");
    told["encoded_length"] = json!(kept);
    assert_eq!(shown("?att_encoding_info=true"), told);
    assert_eq!(shown("?attachments=true")["data"], BASE64.encode(text.as_bytes()));
    assert_eq!(
        shown("?attachments=true&att_encoding_info=true")["data"],
        BASE64.encode(text.as_bytes())
    );
}

#[test]
fn parts_are_packed_where_both_sides_say_so() {
    let couch = Couch::new();
    let text = "a list of things. ".repeat(300);
    let packed = gzip(text.as_bytes());
    let put = |id: &str, length: usize| {
        let attachment = json!({"follows": true, "content_type": "text/plain", "encoding": "gzip", "revpos": 1,
            "digest": digest(&packed), "length": length, "encoded_length": packed.len()});
        let document = json!({"_id": id, "_rev": "1-a", "_attachments": {"list": attachment}});
        let head = format!(
            "--xx\r\nContent-Type: application/json\r\n\r\n{document}\r\n--xx\r\nContent-Encoding: gzip\r\n\r\n"
        );
        let body = [head.as_bytes(), &packed, b"\r\n--xx--"].concat();
        let ask = couch
            .served
            .ask("PUT", &format!("/db/notes/{id}?new_edits=false"))
            .bearer(&couch.token);
        ask.body("multipart/related; boundary=\"xx\"", body).send()
    };
    assert_eq!(
        outcome(&put("doc", text.len() + 1)),
        (400, "content_md5_mismatch".to_owned())
    );
    assert_eq!(put("doc", text.len()).status, 201);
    let related = |query: &str| {
        couch.get_taking(
            &format!("/db/notes/doc?attachments=true{query}"),
            "Accept",
            "multipart/related",
        )
    };
    let holds = |reply: &Reply, part: &[u8]| reply.body.windows(part.len()).any(|window| window == part);
    let whole = related("");
    assert!(
        holds(&whole, text.as_bytes())
            && whole
                .text()
                .contains(&format!("Content-Length: {}\r\n\r\n", text.len()))
    );
    let kept = related("&att_encoding_info=true");
    assert!(holds(&kept, &packed) && !holds(&kept, text.as_bytes()));
    assert!(holds(&kept, b"Content-Encoding: gzip\r\n"));
    // A stub that says how it is kept stands for what was kept.
    let body =
        json!({"_rev": "1-a", "_attachments": {"list": {"stub": true, "encoding": "gzip"}}}).to_string();
    assert_eq!(couch.put("doc", &body).status, 201);
    assert_eq!(couch.send("GET", "/db/notes/doc/list", None).text(), text);
}

#[test]
fn what_is_no_gzip_or_a_bomb_is_refused_and_not_kept() {
    let couch = Couch::new();
    let packed = gzip(&b"some text".repeat(100));
    let mut damaged = packed.clone();
    damaged[20] ^= 0xff;
    let bomb = gzip(&vec![0; 32 << 20]);
    for (what, bytes) in [
        ("text", b"plain".as_slice()),
        ("damaged", &damaged),
        ("cut", &packed[..packed.len() - 1]),
        ("bomb", &bomb),
    ] {
        let reply = couch.put_packed("a", "gzip", bytes);
        assert_eq!(reply.status, 400, "{what}: {}", reply.text());
    }
    assert_eq!(
        outcome(&couch.put_packed("a", "br", b"x")),
        (415, "bad_ctype".to_owned())
    );
    assert_eq!(couch.send("GET", "/db/notes/doc", None).status, 404);
    assert_eq!(couch.blobs(), 0);
}
