//! The JSON of a tree, both ways.

use serde::{Deserialize, Serialize};

use super::super::error::Error;
use super::super::schema::{Time, VERSION, expect_head, join_bytes, parse, split_bytes};
use super::{Body, Device, Entry, EntryName, Kind, Meta, Seen};
use crate::id::BlobId;

/// The value of `"refuge"`.
const KIND: &str = "tree";

const MODE_MAX: u32 = 0o7777;

/// What a tree blob holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::files) enum Tree {
    /// All of the folder, or one run of it.
    Leaf(Vec<Entry>),
    /// The runs in order.
    Branch(Vec<BlobId>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TreeWire {
    entries: Option<Vec<EntryWire>>,
    leaves: Option<Vec<BlobId>>,
    refuge: String,
    version: u32,
}

/// Fields in ascending order: that is the order they are written in.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryWire {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    commit: Option<BlobId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ctime: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    dev: Option<u64>,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    inode: Option<u64>,
    mode: u32,
    mtime: Time,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    name_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    part: Option<BlobId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    rdev: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tree: Option<BlobId>,
    r#type: Type,
    uid: u32,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    File,
    Folder,
    Link,
    Fifo,
    Char,
    Block,
}

/// Appends the JSON of an entry.
pub(super) fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &EntryWire::from(entry)).expect("plain data always has a JSON form");
}

/// The JSON of a branch.
pub(super) fn encode_branch(leaves: &[BlobId]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Branch<'a> {
        leaves: &'a [BlobId],
        refuge: &'a str,
        version: u32,
    }
    let branch = Branch {
        leaves,
        refuge: KIND,
        version: VERSION,
    };
    serde_json::to_vec(&branch).expect("plain data always has a JSON form")
}

/// What a leaf begins with, before its entries with commas in between.
pub(super) const LEAF_HEAD: &[u8] = b"{\"entries\":[";

/// What a leaf ends with.
pub(super) fn leaf_tail() -> String {
    format!("],\"refuge\":\"{KIND}\",\"version\":{VERSION}}}")
}

/// Reads a tree blob. Everything a restore relies on is checked here: names that can't leave their folder,
/// in order and each once.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Newer`].
pub(in crate::files) fn decode(id: &BlobId, bytes: &[u8]) -> Result<Tree, Error> {
    let wire: TreeWire = parse(bytes, id, KIND)?;
    expect_head(id, KIND, &wire.refuge, wire.version)?;
    match (wire.entries, wire.leaves) {
        (Some(wires), None) => {
            let mut entries: Vec<Entry> = Vec::with_capacity(wires.len());
            for wire in wires {
                let entry = wire.read().map_err(|what| Error::tree(id, what))?;
                if entries.last().is_some_and(|last| last.name >= entry.name) {
                    return Err(Error::tree(id, format!("{:?} is out of order", entry.name)));
                }
                entries.push(entry);
            }
            Ok(Tree::Leaf(entries))
        }
        (None, Some(leaves)) => Ok(Tree::Branch(leaves)),
        (Some(_), Some(_)) | (None, None) => Err(Error::tree(id, "it has neither entries nor leaves alone")),
    }
}

impl From<&Entry> for EntryWire {
    fn from(entry: &Entry) -> EntryWire {
        let (name, name_hex) = split_bytes(entry.name.as_bytes());
        let mut wire = EntryWire {
            commit: None,
            ctime: None,
            dev: None,
            gid: entry.meta.gid,
            inode: None,
            mode: entry.meta.mode,
            mtime: entry.meta.mtime,
            name: name.map(str::to_owned),
            name_hex,
            part: None,
            rdev: None,
            size: None,
            target: None,
            target_hex: None,
            tree: None,
            r#type: Type::File,
            uid: entry.meta.uid,
        };
        match &entry.kind {
            Kind::File { size, body, seen } => {
                wire.size = Some(*size);
                wire.inode = Some(seen.inode);
                wire.ctime = seen.ctime;
                wire.dev = seen.dev;
                match body {
                    Body::Empty => {}
                    Body::Part(part) => wire.part = Some(*part),
                    Body::Commit(commit) => wire.commit = Some(*commit),
                }
            }
            Kind::Folder { tree, commit } => {
                wire.r#type = Type::Folder;
                wire.tree = Some(*tree);
                wire.commit = *commit;
            }
            Kind::Link { target } => {
                let (text, hex) = split_bytes(target);
                wire.r#type = Type::Link;
                wire.target = text.map(str::to_owned);
                wire.target_hex = hex;
            }
            Kind::Fifo => wire.r#type = Type::Fifo,
            Kind::Char(device) => {
                wire.r#type = Type::Char;
                wire.rdev = Some((device.major, device.minor));
            }
            Kind::Block(device) => {
                wire.r#type = Type::Block;
                wire.rdev = Some((device.major, device.minor));
            }
        }
        wire
    }
}

impl EntryWire {
    /// The entry, or what is wrong with it.
    fn read(mut self) -> Result<Entry, String> {
        let name = join_bytes(self.name.take(), self.name_hex.take())
            .and_then(EntryName::new)
            .ok_or("it has an entry with a name that no file can have")?;
        if self.mode > MODE_MAX || !self.mtime.is_valid() || !self.ctime.is_none_or(Time::is_valid) {
            return Err(format!("the mode or a time of {name:?} is out of range"));
        }
        let meta = Meta {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
        };
        let kind = self
            .read_kind()
            .ok_or_else(|| format!("the fields of {name:?} do not fit its type"))?;
        if self.has_more() {
            return Err(format!("{name:?} has fields that its type has not"));
        }
        Ok(Entry { name, meta, kind })
    }

    /// Takes the fields of the type; what is left over belongs to another.
    fn read_kind(&mut self) -> Option<Kind> {
        Some(match self.r#type {
            Type::File => Kind::File {
                size: self.size.take()?,
                body: match (self.part.take(), self.commit.take()) {
                    (None, None) => Body::Empty,
                    (Some(part), None) => Body::Part(part),
                    (None, Some(commit)) => Body::Commit(commit),
                    (Some(_), Some(_)) => return None,
                },
                seen: Seen {
                    inode: self.inode.take()?,
                    ctime: self.ctime.take(),
                    dev: self.dev.take(),
                },
            },
            Type::Folder => Kind::Folder {
                tree: self.tree.take()?,
                commit: self.commit.take(),
            },
            Type::Link => {
                let target = join_bytes(self.target.take(), self.target_hex.take())?;
                if target.is_empty() || target.contains(&0) {
                    return None;
                }
                Kind::Link { target }
            }
            Type::Fifo => Kind::Fifo,
            Type::Char => Kind::Char(self.read_device()?),
            Type::Block => Kind::Block(self.read_device()?),
        })
    }

    fn read_device(&mut self) -> Option<Device> {
        let (major, minor) = self.rdev.take()?;
        Some(Device { major, minor })
    }

    fn has_more(&self) -> bool {
        self.commit.is_some()
            || self.ctime.is_some()
            || self.dev.is_some()
            || self.inode.is_some()
            || self.part.is_some()
            || self.rdev.is_some()
            || self.size.is_some()
            || self.target.is_some()
            || self.target_hex.is_some()
            || self.tree.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> BlobId {
        BlobId::of(b"")
    }

    fn meta() -> Meta {
        Meta {
            mode: 0o644,
            uid: 1000,
            gid: 100,
            mtime: Time(1_700_000_000, 5),
        }
    }

    fn entry(name: &[u8], kind: Kind) -> Entry {
        Entry {
            name: EntryName::new(name).unwrap(),
            meta: meta(),
            kind,
        }
    }

    fn leaf(entries: &[Entry]) -> Vec<u8> {
        let mut out = LEAF_HEAD.to_vec();
        for (index, entry) in entries.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            encode_entry(entry, &mut out);
        }
        out.extend_from_slice(leaf_tail().as_bytes());
        out
    }

    #[test]
    fn the_worked_example_reads_and_writes_the_same() {
        let entries = vec![
            entry(
                b"a.txt",
                Kind::File {
                    size: 12,
                    body: Body::Part(id()),
                    seen: Seen {
                        inode: 77,
                        ctime: Some(Time(1_700_000_001, 0)),
                        dev: None,
                    },
                },
            ),
            entry(
                b"b",
                Kind::Folder {
                    tree: id(),
                    commit: None,
                },
            ),
            entry(
                b"c\xff",
                Kind::Link {
                    target: b"../a.txt".to_vec(),
                },
            ),
        ];
        let empty = "blake3;af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        let json = format!(
            concat!(
                r#"{{"entries":["#,
                r#"{{"ctime":[1700000001,0],"gid":100,"inode":77,"mode":420,"mtime":[1700000000,5],"name":"a.txt","#,
                r#""part":"{id}","size":12,"type":"file","uid":1000}},"#,
                r#"{{"gid":100,"mode":420,"mtime":[1700000000,5],"name":"b","tree":"{id}","type":"folder","uid":1000}},"#,
                r#"{{"gid":100,"mode":420,"mtime":[1700000000,5],"name_hex":"63ff","target":"../a.txt","type":"link","uid":1000}}"#,
                r#"],"refuge":"tree","version":1}}"#,
            ),
            id = empty
        );
        assert_eq!(String::from_utf8(leaf(&entries)).unwrap(), json);
        assert_eq!(decode(&id(), json.as_bytes()).unwrap(), Tree::Leaf(entries));
        let branch = format!(r#"{{"leaves":["{empty}"],"refuge":"tree","version":1}}"#);
        assert_eq!(encode_branch(&[id()]), branch.as_bytes());
        assert_eq!(
            decode(&id(), branch.as_bytes()).unwrap(),
            Tree::Branch(vec![id()])
        );
    }

    #[test]
    fn names_that_leave_their_folder_and_folders_out_of_order_are_refused() {
        let fifo = |name: &str| format!(r#"{{"gid":0,"mode":0,"mtime":[0,0],{name},"type":"fifo","uid":0}}"#);
        let tree = |entries: &[String]| {
            let json = format!(
                r#"{{"entries":[{}],"refuge":"tree","version":1}}"#,
                entries.join(",")
            );
            decode(&id(), json.as_bytes())
        };
        assert!(tree(&[fifo(r#""name":"a""#), fifo(r#""name":"b""#)]).is_ok());
        for bad in [
            r#""name":"""#,
            r#""name":".""#,
            r#""name":"..""#,
            r#""name":"../x""#,
            r#""name":"/etc/passwd""#,
            r#""name":"a/b""#,
            r#""name":"a\u0000b""#,
            r#""name_hex":"61""#,
            r#""name_hex":"FF""#,
            r#""name_hex":"ff2f""#,
            r#""name":"a","name_hex":"ff""#,
            r#""name":"a","size":1"#,
            r#""name":"a","extra":1"#,
        ] {
            assert!(
                matches!(tree(&[fifo(bad)]), Err(Error::Malformed { .. })),
                "{bad}"
            );
        }
        let (a, b) = (fifo(r#""name":"a""#), fifo(r#""name":"b""#));
        assert!(tree(&[b, a.clone()]).is_err());
        assert!(tree(&[a.clone(), a]).is_err());
        let long = fifo(&format!(r#""name":"{}""#, "x".repeat(256)));
        assert!(tree(&[long]).is_err());
    }

    #[test]
    fn a_newer_tree_and_another_kind_are_told_apart() {
        let newer = br#"{"entries":[],"more":1,"refuge":"tree","version":2}"#;
        assert!(matches!(decode(&id(), newer), Err(Error::Newer { found: 2, .. })));
        let other = br#"{"entries":[],"refuge":"commit","version":1}"#;
        assert!(matches!(decode(&id(), other), Err(Error::Malformed { .. })));
        assert!(matches!(decode(&id(), b"\xff"), Err(Error::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode(&id(), &bytes);
        }

        #[test]
        fn any_name_and_target_come_back(name in prop::collection::vec(1_u8.., 1..255), target in prop::collection::vec(1_u8.., 1..99)) {
            if let Some(name) = EntryName::new(name) {
                let entries = vec![Entry { name, meta: meta(), kind: Kind::Link { target } }];
                prop_assert_eq!(decode(&id(), &leaf(&entries)).unwrap(), Tree::Leaf(entries));
            }
        }
    }
}
