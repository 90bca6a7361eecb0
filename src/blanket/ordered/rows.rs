//! Documents out of keys: every value is compared with its checksum before it is believed.

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use super::super::doc::Content;
use super::super::engine::{Loaded, LocalDoc, Record, Row, Visit, Visitor, Which};
use super::super::error::Error;
use super::super::tree::Leaf;
use super::layout::{self, Head, Held, Stored};
use super::{Moment, Range, group};
use crate::id::{DocId, LocalId, Rev, Seq};

/// Rows that are held at once between a walk over keys and what is read for each.
const ROWS: usize = 128;

/// What a document is at, `None` where it was never written or is forgotten.
pub(super) fn stored(moment: &mut dyn Moment, id: &DocId, path: &Path) -> Result<Option<Stored>, Error> {
    let seq = place(moment, id, path)?;
    seq.map(|seq| at(moment, id, seq, path)).transpose()
}

/// The sequence that a document is at.
fn place(moment: &mut dyn Moment, id: &DocId, path: &Path) -> Result<Option<Seq>, Error> {
    let key = layout::id_key(id);
    let Some(sealed) = moment.get(&key)? else {
        return Ok(None);
    };
    let number = layout::unseal(&key, &sealed).map_err(|unreadable| unreadable.of(id, path))?;
    let seq = layout::number(number).and_then(Seq::new);
    seq.map(Some).ok_or_else(|| Error::DamagedDoc { id: id.clone() })
}

/// What a document is at a sequence.
fn at(moment: &mut dyn Moment, id: &DocId, seq: Seq, path: &Path) -> Result<Stored, Error> {
    let key = layout::seq_key(seq);
    let sealed = moment.get(&key)?;
    let sealed = sealed.ok_or_else(|| Error::DamagedDoc { id: id.clone() })?;
    let read = layout::unseal(&key, &sealed).and_then(|value| layout::stored(seq, value));
    read.map_err(|unreadable| unreadable.of(id, path))
}

/// What several documents are at, in that order.
pub(super) fn stored_all(
    moment: &mut dyn Moment,
    ids: &[DocId],
    path: &Path,
) -> Result<Vec<Option<Stored>>, Error> {
    let mut all = Vec::with_capacity(ids.len());
    for ids in ids.chunks(ROWS) {
        let mut keys: Vec<Vec<u8>> = ids.iter().map(layout::id_key).collect();
        moment.look_ahead(&keys)?;
        let mut places = Vec::with_capacity(ids.len());
        for id in ids {
            places.push(place(moment, id, path)?);
        }
        keys = places.iter().flatten().map(|seq| layout::seq_key(*seq)).collect();
        moment.look_ahead(&keys)?;
        for (id, place) in ids.iter().zip(places) {
            all.push(place.map(|seq| at(moment, id, seq, path)).transpose()?);
        }
    }
    Ok(all)
}

/// One document.
pub(super) fn load(
    moment: &mut dyn Moment,
    id: &DocId,
    which: &Which,
    path: &Path,
) -> Result<Option<Loaded>, Error> {
    let Some(Stored { seq, tree, held }) = stored(moment, id, path)? else {
        return Ok(None);
    };
    let leaves = tree.leaves().into_iter().zip(held);
    let wanted: Vec<(Leaf, Held)> = match which {
        Which::Record => Vec::new(),
        Which::Winner => leaves.take(1).collect(),
        Which::Leaf(rev) => leaves.filter(|(leaf, _)| leaf.rev == *rev).collect(),
        Which::Leaves => leaves.collect(),
    };
    let mut contents = Vec::with_capacity(wanted.len());
    for (leaf, held) in wanted {
        let content = content(moment, id, &leaf.rev, held)?;
        contents.push((leaf, content));
    }
    let record = Record { seq, tree };
    Ok(Some(Loaded { record, contents }))
}

/// Documents by sequence.
pub(super) fn by_seq(
    moment: &mut dyn Moment,
    range: (Bound<Seq>, Bound<Seq>),
    visit: Visit,
    path: &Path,
    visitor: &mut Visitor<'_, Row>,
) -> Result<(), Error> {
    let (low, high) = seqs(range);
    let read = |key: &[u8], sealed: &[u8]| {
        let seq = layout::seq_of(key).ok_or_else(|| layout::damaged(key, path))?;
        let head = layout::unseal(key, sealed).and_then(layout::head);
        Ok((seq, head.map_err(|unreadable| unreadable.at(key, path))?))
    };
    let mut emit =
        |moment: &mut dyn Moment, (seq, head): (Seq, Head)| row(moment, seq, head, visit).map(&mut *visitor);
    paged(moment, (low, high), visit, &read, &mut emit)
}

/// Documents by id.
pub(super) fn by_id(
    moment: &mut dyn Moment,
    range: (Bound<&DocId>, Bound<&DocId>),
    visit: Visit,
    path: &Path,
    visitor: &mut Visitor<'_, Row>,
) -> Result<(), Error> {
    let range = texts(b'd', (range.0.map(DocId::as_str), range.1.map(DocId::as_str)));
    let read = |key: &[u8], sealed: &[u8]| {
        let id = layout::id_of(key).ok_or_else(|| layout::damaged(key, path))?;
        let number = layout::unseal(key, sealed).map_err(|unreadable| unreadable.of(&id, path))?;
        let seq = layout::number(number).and_then(Seq::new);
        Ok((seq.ok_or_else(|| Error::DamagedDoc { id: id.clone() })?, id))
    };
    let mut emit = |moment: &mut dyn Moment, (seq, id): (Seq, DocId)| {
        let damaged = || Error::DamagedDoc { id: id.clone() };
        let key = layout::seq_key(seq);
        let sealed = moment.get(&key)?.ok_or_else(damaged)?;
        let head = layout::unseal(&key, &sealed).and_then(layout::head);
        let head = head.map_err(|unreadable| unreadable.of(&id, path))?;
        if head.id != id {
            return Err(damaged());
        }
        row(moment, seq, head, visit).map(&mut *visitor)
    };
    let ahead = |page: &[(Seq, DocId)]| page.iter().map(|(seq, _)| layout::seq_key(*seq)).collect();
    paged_ahead(moment, range, visit, (&read, &ahead), &mut emit)
}

/// How many documents there are by sequence.
pub(super) fn count(moment: &mut dyn Moment, range: (Bound<Seq>, Bound<Seq>)) -> Result<u64, Error> {
    let (low, high) = seqs(range);
    let mut count = 0;
    moment.walk((&low, Some(&high)), false, &mut |_, _| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}

/// What leaves with attachments hold.
pub(super) fn attached(
    moment: &mut dyn Moment,
    path: &Path,
    visitor: &mut Visitor<'_, (DocId, Content)>,
) -> Result<(), Error> {
    let read = |key: &[u8], sealed: &[u8]| {
        let (id, rev) = layout::attached_of(key).ok_or_else(|| layout::damaged(key, path))?;
        layout::unseal(key, sealed).map_err(|unreadable| unreadable.of(&id, path))?;
        Ok((id, rev))
    };
    let mut emit = |moment: &mut dyn Moment, (id, rev): (DocId, Rev)| {
        let found = load(moment, &id, &Which::Leaf(rev), path)?.and_then(|mut loaded| loaded.contents.pop());
        let (_, content) = found.ok_or_else(|| Error::DamagedDoc { id: id.clone() })?;
        Ok(visitor((id, content)))
    };
    paged(moment, (b"a".to_vec(), b"b".to_vec()), ALL, &read, &mut emit)
}

/// One local document.
pub(super) fn local(moment: &mut dyn Moment, id: &LocalId, path: &Path) -> Result<Option<LocalDoc>, Error> {
    let key = layout::local_key(id);
    let sealed = moment.get(&key)?;
    sealed.map(|sealed| local_doc(&key, &sealed, path)).transpose()
}

/// Local documents by id.
pub(super) fn locals(
    moment: &mut dyn Moment,
    range: (Bound<&LocalId>, Bound<&LocalId>),
    visit: Visit,
    path: &Path,
    visitor: &mut Visitor<'_, (LocalId, LocalDoc)>,
) -> Result<(), Error> {
    let range = texts(b'l', (range.0.map(LocalId::name), range.1.map(LocalId::name)));
    let read = |key: &[u8], sealed: &[u8]| {
        let id = layout::local_of(key).ok_or_else(|| layout::damaged(key, path))?;
        Ok((id, local_doc(key, sealed, path)?))
    };
    paged(moment, range, visit, &read, &mut |_, local| Ok(visitor(local)))
}

/// One setting.
pub(super) fn setting(moment: &mut dyn Moment, key: &str, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let key = layout::setting_key(key);
    let Some(sealed) = moment.get(&key)? else {
        return Ok(None);
    };
    let value = layout::unseal(&key, &sealed).map_err(|unreadable| unreadable.at(&key, path))?;
    Ok(Some(value.to_vec()))
}

/// Reads everything; what is wrong first.
pub(super) fn check(moment: &mut dyn Moment, path: &Path) -> Result<Option<String>, Error> {
    let (mut docs, mut deleted_docs, mut last) = (0, 0, Seq::ZERO);
    let mut by_ids: u64 = 0;
    let mut read = |moment: &mut dyn Moment| -> Result<(), Error> {
        sealed(moment, path)?;
        by_seq(
            moment,
            (Bound::Unbounded, Bound::Unbounded),
            WITH_CONTENTS,
            path,
            &mut |row| {
                match row.leaves[0].deleted {
                    true => deleted_docs += 1,
                    false => docs += 1,
                }
                last = row.seq;
                ControlFlow::Continue(())
            },
        )?;
        by_id(
            moment,
            (Bound::Unbounded, Bound::Unbounded),
            ALL,
            path,
            &mut |_| {
                by_ids += 1;
                ControlFlow::Continue(())
            },
        )?;
        attached(moment, path, &mut |_| ControlFlow::Continue(()))
    };
    match read(moment) {
        Err(Error::DamagedDoc { id }) => return Ok(Some(format!("the document {id} is damaged"))),
        Err(Error::Corrupt { what, .. }) => return Ok(Some(what)),
        read => read?,
    }
    let counted = group::counters(moment, path)?.summary;
    let agrees = group::agrees(counted, docs, deleted_docs, last) && by_ids == docs + deleted_docs;
    Ok((!agrees).then(|| {
        format!(
            "{docs} documents and {deleted_docs} deleted ones are there, {by_ids} by their ids, where {} and {} were counted",
            counted.docs, counted.deleted_docs
        )
    }))
}

const ALL: Visit = Visit {
    descending: false,
    limit: usize::MAX,
    contents: false,
};

const WITH_CONTENTS: Visit = Visit {
    contents: true,
    ..ALL
};

/// Compares every value with its checksum, also of leaves that do not win.
fn sealed(moment: &mut dyn Moment, path: &Path) -> Result<(), Error> {
    moment.walk((&[], None), false, &mut |key, sealed| {
        layout::unseal(key, sealed).map_err(|unreadable| unreadable.at(key, path))?;
        Ok(ControlFlow::Continue(()))
    })
}

/// From a key and its sealed value to what is made of them before anything else is read.
type Read<'a, T> = dyn Fn(&[u8], &[u8]) -> Result<T, Error> + 'a;

/// Makes something of it, and may read for that.
type Emit<'a, T> = dyn FnMut(&mut dyn Moment, T) -> Result<ControlFlow<()>, Error> + 'a;

/// Walks over keys in pages, and between them makes something of each.
fn paged<T>(
    moment: &mut dyn Moment,
    range: (Vec<u8>, Vec<u8>),
    visit: Visit,
    read: &Read<'_, T>,
    emit: &mut Emit<'_, T>,
) -> Result<(), Error> {
    paged_ahead(moment, range, visit, (read, &|_| Vec::new()), emit)
}

/// From a page to the keys that are read for it.
type Ahead<'a, T> = dyn Fn(&[T]) -> Vec<Vec<u8>> + 'a;

/// As [`paged`], where for each page the same keys are read.
fn paged_ahead<T>(
    moment: &mut dyn Moment,
    (mut low, mut high): (Vec<u8>, Vec<u8>),
    visit: Visit,
    (read, ahead): (&Read<'_, T>, &Ahead<'_, T>),
    emit: &mut Emit<'_, T>,
) -> Result<(), Error> {
    let mut left = visit.limit;
    while left > 0 && low < high {
        let most = left.min(ROWS);
        let mut page = Vec::with_capacity(most);
        // What is read before a damaged row is told first.
        let mut failed = None;
        let mut last = Vec::new();
        let range: Range<'_> = (&low, Some(&high));
        moment.walk(range, visit.descending, &mut |key, sealed| {
            match read(key, sealed) {
                Ok(item) => page.push(item),
                Err(error) => failed = Some(error),
            }
            last.clear();
            last.extend_from_slice(key);
            Ok(match page.len() == most || failed.is_some() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        let is_end = page.len() < most;
        left -= page.len();
        moment.look_ahead(&ahead(&page))?;
        for item in page {
            if emit(moment, item)?.is_break() {
                return Ok(());
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if is_end {
            return Ok(());
        }
        match visit.descending {
            true => high = last,
            false => {
                last.push(0);
                low = last;
            }
        }
    }
    Ok(())
}

fn row(moment: &mut dyn Moment, seq: Seq, head: Head, visit: Visit) -> Result<Row, Error> {
    let content = match visit.contents {
        true => Some(content(moment, &head.id, &head.leaves[0].rev, head.held[0])?),
        false => None,
    };
    Ok(Row {
        seq,
        id: head.id,
        leaves: head.leaves,
        content,
    })
}

fn content(moment: &mut dyn Moment, id: &DocId, rev: &Rev, held: Held) -> Result<Content, Error> {
    let damaged = || Error::DamagedDoc { id: id.clone() };
    let mut whole = Vec::new();
    for piece in 0..held.pieces {
        let key = layout::piece_key(id, rev, piece);
        let sealed = moment.get(&key)?.ok_or_else(damaged)?;
        whole.extend(layout::unseal(&key, &sealed).map_err(|_| damaged())?);
    }
    layout::content(&whole)
        .filter(|content| content.attachments.is_empty() != held.is_attached)
        .ok_or_else(damaged)
}

fn local_doc(key: &[u8], sealed: &[u8], path: &Path) -> Result<LocalDoc, Error> {
    let value = layout::unseal(key, sealed).map_err(|unreadable| unreadable.at(key, path))?;
    let read = || {
        let (edits, body) = value.split_first_chunk::<8>()?;
        Some(LocalDoc {
            edits: u64::from_be_bytes(*edits),
            body: std::str::from_utf8(body).ok()?.to_owned().into(),
        })
    };
    read().ok_or_else(|| layout::damaged(key, path))
}

/// Keys of sequences, from the first to before the second.
fn seqs(range: (Bound<Seq>, Bound<Seq>)) -> (Vec<u8>, Vec<u8>) {
    let after = |seq: Seq| {
        let mut key = layout::seq_key(seq);
        key.push(0);
        key
    };
    let low = match range.0 {
        Bound::Included(seq) => layout::seq_key(seq),
        Bound::Excluded(seq) => after(seq),
        Bound::Unbounded => b"s".to_vec(),
    };
    let high = match range.1 {
        Bound::Included(seq) => after(seq),
        Bound::Excluded(seq) => layout::seq_key(seq),
        Bound::Unbounded => b"t".to_vec(),
    };
    (low, high)
}

/// Keys of names, from the first to before the second: the text after another in the order of bytes is that with a zero more.
fn texts(kind: u8, range: (Bound<&str>, Bound<&str>)) -> (Vec<u8>, Vec<u8>) {
    let key = |text: &str, end: &[u8]| [&[kind], text.as_bytes(), end].concat();
    let low = match range.0 {
        Bound::Included(text) => key(text, b""),
        Bound::Excluded(text) => key(text, b"\0"),
        Bound::Unbounded => vec![kind],
    };
    let high = match range.1 {
        Bound::Included(text) => key(text, b"\0"),
        Bound::Excluded(text) => key(text, b""),
        Bound::Unbounded => vec![kind + 1],
    };
    (low, high)
}
