//! How a database on a server is made, and how it is taken from whoever had it open before.

use std::path::Path;

use serde::Serialize;

use super::super::error::Error;
use super::super::ordered::Batch;
use super::super::servers::{ServerPlace, Servers};
use super::redo::{self, PARTS_MAX, Part, Record, State, part_id};
use super::settings::Settings;
use super::wire::{Put, Window, Wire};
use super::{ATTEMPTS_MAX, OWNER, Owner, Pending, REDO, Writing, corrupt, random_name, taken};

/// Makes a database on a server.
pub(super) fn make(folder: &Path, server: &ServerPlace, servers: &Servers) -> Result<(Wire, Writing), Error> {
    let wire = Wire::to(server, servers)?;
    let settings = Settings {
        server: server.clone(),
        owner: random_name()?,
    };
    settings.write(folder)?;
    if !wire.make()? && !is_empty(&wire)? {
        return Err(Error::BadServer {
            reason: format!(
                "{} has documents: name one that is not there, or is empty",
                wire.url()
            ),
        });
    }
    let owner = Owner {
        version: redo::VERSION,
        owner: settings.owner,
    };
    put_new(&wire, OWNER, &owner)?;
    let rev = put_new(&wire, REDO, &Record::none(0, random_name()?))?;
    let writing = Writing {
        rev,
        group: 0,
        tokens: Vec::new(),
        pending: Pending::Nothing,
    };
    Ok((wire, writing))
}

fn is_empty(wire: &Wire) -> Result<bool, Error> {
    let whole = Window {
        start: "",
        end: "\u{fff0}",
        descending: false,
        skip: 0,
        limit: 1,
    };
    Ok(wire.window(&whole)?.0.is_empty())
}

fn put_new<T: Serialize>(wire: &Wire, id: &str, doc: &T) -> Result<String, Error> {
    match wire.put(id, None, doc) {
        Put::Stored(rev) => Ok(rev),
        Put::Conflict => Err(taken(wire)),
        Put::Refused(error) | Put::Unsure(error) => Err(error),
    }
}

/// Takes a database that this node has, and makes whoever had it open before fail.
pub(super) fn take(folder: &Path, servers: &Servers) -> Result<(Wire, Writing), Error> {
    let settings = Settings::read(folder)?;
    let wire = Wire::to(&settings.server, servers)?;
    let gone = || wire.error("what this database has there is gone");
    let owner = wire.doc::<Owner>(OWNER)?.ok_or_else(gone)?;
    if owner.doc.version > redo::VERSION {
        return Err(Error::Newer {
            path: folder.to_owned(),
        });
    }
    if owner.doc.owner != settings.owner {
        return Err(taken(&wire));
    }
    for _ in 0..ATTEMPTS_MAX {
        let found = wire.doc::<Record>(REDO)?.ok_or_else(gone)?;
        let record = found.doc;
        if record.version > redo::VERSION {
            return Err(Error::Newer {
                path: folder.to_owned(),
            });
        }
        // The same once more: its new revision is what others do not know.
        let rev = match wire.put(REDO, Some(&found.rev), &record) {
            Put::Stored(rev) => rev,
            Put::Conflict => continue,
            Put::Refused(error) | Put::Unsure(error) => return Err(error),
        };
        let pending = match record.state {
            State::None => Pending::Nothing,
            State::Apply => Pending::Apply(whole(&wire, folder, &record)?),
        };
        let writing = Writing {
            rev,
            group: record.group,
            tokens: Vec::new(),
            pending,
        };
        return Ok((wire, writing));
    }
    Err(taken(&wire))
}

/// What is to be written, of a record and its parts.
fn whole(wire: &Wire, folder: &Path, record: &Record) -> Result<Batch, Error> {
    let damaged = || corrupt(folder, "the record of its last group is damaged");
    if record.parts > PARTS_MAX {
        return Err(damaged());
    }
    let mut parts = Vec::with_capacity(record.parts);
    for number in 0..record.parts {
        let part = wire.doc::<Part>(&part_id(number))?;
        parts.push(part.ok_or_else(damaged)?.doc);
    }
    record.batch(&parts).ok_or_else(damaged)
}
