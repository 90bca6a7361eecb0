//! What a node is asked beside single blobs: uploads in pieces, refs that move, collections; and what of it must be there
//! when the node comes back.

use std::collections::BTreeMap;
use std::io;

use super::driver::{Driver, blob, key_of, outcome_of, path_of};
use super::journal::{Expectation, Intent, Outcome, Value};
use super::seed::Rng;
use crate::support::{Answer, Http};

/// Refs that are moved, and folders they are moved to.
const REFS: usize = 3;
const FOLDERS: usize = 6;

/// In every request about an upload.
const TUS: (&str, &str) = ("tus-resumable", "1.0.0");
const PIECE: (&str, &str) = ("content-type", "application/offset+octet-stream");

/// What refs name is no client's blob, and is judged with the refs.
const PART: (&str, &str) = ("refuge-class", "part");

/// Something that is under way, as the journal knows it.
struct Begun {
    number: usize,
    value: Value,
}

impl Driver<'_> {
    /// Uploads blob `number` in two pieces and removes the upload.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) fn upload(&mut self, number: usize) -> io::Result<()> {
        let body = blob(number).1;
        let (len, metadata) = (body.len().to_string(), format!("number {}", text_of(number)));
        let headers = [TUS, ("upload-length", &len), ("upload-metadata", &metadata)];
        let made = self.http.send("POST", "/uploads", &headers, &[])?;
        let Some(location) = made.header("location").filter(|_| made.is_success()) else {
            return Ok(());
        };
        let location = location.to_owned();
        // Only now its name is known.
        let begun = self.begin(&upload_key(&location), Some("0".to_owned()));
        self.end(&begun, &Ok(made));
        let half = body.len() / 2;
        if !self.piece(&location, 0, &body[..half], number)?.is_success() {
            return Ok(());
        }
        self.piece(&location, half, &body[half..], number)?;
        self.remove_upload(&location)
    }

    /// Ends an upload that an earlier node left, wherever it is.
    ///
    /// # Errors
    /// When there is no answer.
    ///
    /// # Panics
    /// When it can't be gone on with.
    pub(crate) fn finish_upload(&mut self, location: &str) -> io::Result<()> {
        let head = self.http.send("HEAD", location, &[TUS], &[])?;
        let number = head.header("upload-metadata").and_then(number_of);
        let offset = head.header("upload-offset").and_then(|text| text.parse().ok());
        if let (200, Some(number), Some(offset)) = (head.status, number, offset) {
            let body = blob(number).1;
            let piece = self.piece(location, offset, &body[offset..], number)?;
            assert!(
                piece.is_success(),
                "{location} can't be gone on with: {}",
                piece.text()
            );
        }
        self.remove_upload(location)
    }

    fn piece(&mut self, location: &str, offset: usize, bytes: &[u8], number: usize) -> io::Result<Answer> {
        let (id, body) = blob(number);
        let after = offset + bytes.len();
        let begun = self.begin(&upload_key(location), Some(after.to_string()));
        let blob = (after == body.len()).then(|| self.begin(&key_of(&id), Some(id)));
        let offset = offset.to_string();
        let headers = [TUS, PIECE, ("upload-offset", &offset)];
        let answer = self.http.send("PATCH", location, &headers, bytes);
        self.end(&begun, &answer);
        if let Some(blob) = &blob {
            // The blob is stored before its upload's record says so: without room for that the whole is refused.
            match &answer {
                Ok(refused) if refused.status == 507 => {
                    self.journal.end(self.disk, blob.number, Outcome::Unknown);
                }
                Ok(_) | Err(_) => self.end(blob, &answer),
            }
        }
        answer
    }

    fn remove_upload(&mut self, location: &str) -> io::Result<()> {
        let begun = self.begin(&upload_key(location), None);
        let answer = self.http.send("DELETE", location, &[TUS], &[]);
        self.end(&begun, &answer);
        answer.map(drop)
    }

    /// Moves a ref to another folder, or deletes it.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) fn move_ref(&mut self, rng: &mut Rng) -> io::Result<()> {
        let (name, content) = (
            format!("ref{}", rng.below(REFS)),
            format!("folder {}", rng.below(FOLDERS)),
        );
        let deletes = rng.one_in(4);
        let path = format!("/refs/{name}");
        let present = self.http.send("GET", &path, &[], &[])?;
        let expected = match (present.status, present.header("etag")) {
            (200, Some(tag)) => ("if-match", tag.to_owned()),
            (404, _) if !deletes => ("if-none-match", "*".to_owned()),
            _ => return Ok(()),
        };
        let expected = (expected.0, expected.1.as_str());
        if deletes {
            let begun = self.begin(&ref_key(&name), None);
            let answer = self.http.send("DELETE", &path, &[expected], &[]);
            self.end(&begun, &answer);
            return answer.map(drop);
        }
        let part = self.put_part(content.as_bytes())?;
        let tree = format!(
            r#"{{"entries":[{{"gid":0,"inode":1,"mode":420,"mtime":[0,0],"name":"file","part":"{part}","size":{},"type":"file","uid":0}}],"refuge":"tree","version":1}}"#,
            content.len()
        );
        let tree = self.put_part(tree.as_bytes())?;
        let record = format!(
            r#"{{"name":"{name}","snapshots":[{{"tree":"{tree}","time_ms":1,"host":"host","source":"/","files":1,"bytes":1}}]}}"#
        );
        let begun = self.begin(&ref_key(&name), Some(tree));
        let json = ("content-type", "application/json");
        let answer = self.http.send("PUT", &path, &[expected, json], record.as_bytes());
        self.end(&begun, &answer);
        answer.map(drop)
    }

    /// Puts a part; its id.
    fn put_part(&mut self, bytes: &[u8]) -> io::Result<String> {
        let id = format!("blake3;{}", blake3::hash(bytes).to_hex());
        self.http.send("PUT", &path_of(&id), &[PART], bytes)?;
        Ok(id)
    }

    /// Has the node collect what nothing names.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) fn collect(&mut self) -> io::Result<()> {
        self.http.send("POST", "/api/gc", &[], &[]).map(drop)
    }

    fn begin(&self, key: &str, value: Value) -> Begun {
        let key = key.to_owned();
        let intent = Intent {
            key,
            value: value.clone(),
        };
        Begun {
            number: self.journal.begin(self.disk, intent),
            value,
        }
    }

    fn end(&self, begun: &Begun, answer: &io::Result<Answer>) {
        let outcome = outcome_of(answer, begun.value.as_deref());
        self.journal.end(self.disk, begun.number, outcome);
    }
}

/// Uploads that may be there, by their paths.
pub(crate) fn uploads(expected: &Expectation) -> Vec<String> {
    let there = expected.keys().filter(|key| expected.value_of(key).is_some());
    there
        .filter_map(|key| key.strip_prefix(UPLOAD).map(str::to_owned))
        .collect()
}

/// Adds the uploads that may be there and all refs to what was found, and what is wrong with what refs name.
///
/// # Errors
/// When the node does not answer.
pub(super) fn add_to(
    found: &mut BTreeMap<String, String>,
    http: &mut Http,
    expected: &Expectation,
) -> io::Result<Vec<String>> {
    for location in uploads(expected) {
        let head = http.send("HEAD", &location, &[TUS], &[])?;
        if let (200, Some(offset)) = (head.status, head.header("upload-offset")) {
            found.insert(upload_key(&location), offset.to_owned());
        }
    }
    let mut wrong = Vec::new();
    let refs = http.send("GET", "/refs", &[], &[])?.accepted()?;
    let refs: serde_json::Value = serde_json::from_slice(&refs.body)?;
    for record in refs["refs"].as_array().into_iter().flatten() {
        let name = record["name"].as_str().unwrap_or_default();
        let snapshots = record["snapshots"].as_array().map_or(0, Vec::len);
        if !name.starts_with("ref") {
            found.insert(ref_key(name), format!("{snapshots} snapshots"));
            continue;
        }
        let tree = record["snapshots"][0]["tree"].as_str().unwrap_or_default();
        found.insert(ref_key(name), tree.to_owned());
        let read = http.send("GET", &path_of(tree), &[], &[])?;
        let folder: serde_json::Value = serde_json::from_slice(&read.body).unwrap_or_default();
        let part = folder["entries"][0]["part"].as_str().unwrap_or_default();
        let read = http.send("GET", &path_of(part), &[], &[])?;
        if !read.body.starts_with(b"folder ") {
            wrong.push(format!(
                "{name} names {tree}, which is not whole: {}",
                read.text()
            ));
        }
    }
    Ok(wrong)
}

const UPLOAD: &str = "upload ";

fn upload_key(location: &str) -> String {
    format!("{UPLOAD}{location}")
}

/// Under which a journal knows a ref: one that a [`Driver`] moves by its tree, any other by how many snapshots it has.
pub(crate) fn ref_key(name: &str) -> String {
    format!("ref {name}")
}

fn text_of(number: usize) -> String {
    data_encoding::BASE64.encode(number.to_string().as_bytes())
}

fn number_of(metadata: &str) -> Option<usize> {
    let text = data_encoding::BASE64
        .decode(metadata.strip_prefix("number ")?.as_bytes())
        .ok()?;
    String::from_utf8(text).ok()?.parse().ok()
}
