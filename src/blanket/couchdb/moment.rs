//! Rows as they are read: each with the key that it is of, in the order of keys.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER};
use serde::Deserialize;
use serde_json::Value;

use super::super::error::Error;
use super::super::ordered::{Moment, Range, Walker};
use super::wire::Window;
use super::{Couch, corrupt, ids};

/// Rows that are read at once.
const WINDOW_ROWS: usize = 128;

/// Rows that are read ahead by their keys: as many as are asked for together.
const AHEAD_ROWS: usize = 500;

/// The document of a row.
#[derive(Deserialize)]
struct Document {
    /// The sealed value, as base64.
    v: String,
    /// The key in hexadecimal, where it does not stand in the id.
    #[serde(default)]
    k: Option<String>,
}

/// The rows between groups.
pub(super) struct At<'a> {
    store: &'a Couch,
    /// Rows that were read ahead.
    ahead: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

impl At<'_> {
    /// Between groups: whoever reads holds them off.
    pub(super) fn of(store: &Couch) -> At<'_> {
        At {
            store,
            ahead: BTreeMap::new(),
        }
    }

    fn pair(&self, id: &str, doc: Value) -> Result<Pair, Error> {
        let damaged = || {
            corrupt(
                &self.store.folder,
                &format!("the row {id:.80} on its server is damaged"),
            )
        };
        let document: Document = serde_json::from_value(doc).map_err(|_| damaged())?;
        let key = match document.k {
            None => ids::key_in(id),
            Some(hex) => HEXLOWER.decode(hex.as_bytes()).ok(),
        };
        let key = key.filter(|key| ids::id_of(key) == id).ok_or_else(damaged)?;
        let value = BASE64.decode(document.v.as_bytes()).map_err(|_| damaged())?;
        Ok((key, value))
    }

    /// Tells keys of one place in their order; whether the walker has enough.
    fn tell(
        &self,
        pairs: &mut Vec<Pair>,
        range: Range<'_>,
        descending: bool,
        walker: &mut Walker<'_>,
    ) -> Result<bool, Error> {
        pairs.sort();
        if descending {
            pairs.reverse();
        }
        for (key, value) in pairs.drain(..) {
            let is_within = &key[..] >= range.0 && range.1.is_none_or(|high| &key[..] < high);
            if is_within && walker(&key, &value)?.is_break() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Moment for At<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if let Some(value) = self.ahead.get(key) {
            return Ok(value.clone());
        }
        let id = ids::id_of(key);
        match self.store.wire.doc::<Value>(&id)? {
            None => Ok(None),
            Some(held) => Ok(Some(self.pair(&id, held.doc)?.1)),
        }
    }

    fn look_ahead(&mut self, keys: &[Vec<u8>]) -> Result<(), Error> {
        self.ahead.clear();
        // What is behind that is read one by one.
        let keys = &keys[..keys.len().min(AHEAD_ROWS)];
        if keys.len() < 2 {
            return Ok(());
        }
        let ids: Vec<String> = keys.iter().map(|key| ids::id_of(key)).collect();
        for ((key, id), row) in keys.iter().zip(&ids).zip(self.store.wire.rows(&ids, true)?) {
            let is_live = row.value.as_ref().is_some_and(|value| !value.deleted);
            let value = match row.doc.filter(|doc| is_live && !doc.is_null()) {
                None => None,
                Some(doc) => Some(self.pair(id, doc)?.1),
            };
            self.ahead.insert(key.clone(), value);
        }
        Ok(())
    }

    fn walk(&mut self, range: Range<'_>, descending: bool, walker: &mut Walker<'_>) -> Result<(), Error> {
        if range.1.is_some_and(|high| range.0 >= high) {
            return Ok(());
        }
        let (low, high) = (ids::lowest(range.0), ids::highest(range.1));
        let (mut start, end) = if descending { (high, low) } else { (low, high) };
        // The last row that was seen: a window begins behind it.
        let mut last: Option<String> = None;
        let mut pairs: Vec<Pair> = Vec::new();
        loop {
            let window = Window {
                start: &start,
                end: &end,
                descending,
                skip: usize::from(last.is_some()),
                limit: WINDOW_ROWS,
            };
            let (rows, limit) = self.store.wire.window(&window)?;
            let is_end = rows.len() < limit;
            for row in rows {
                let is_next = last.as_ref().is_none_or(|last| match descending {
                    false => row.key > *last,
                    true => row.key < *last,
                });
                if !is_next {
                    return Err(self
                        .store
                        .wire
                        .error("its rows are not in the order of their ids"));
                }
                let is_same_place = last
                    .as_ref()
                    .is_some_and(|last| ids::place_of(last) == ids::place_of(&row.key));
                if !is_same_place && self.tell(&mut pairs, range, descending, walker)? {
                    return Ok(());
                }
                // What is not of ours stands before and behind the rows.
                if let Some(doc) = row.doc.filter(|_| row.key.starts_with('k')) {
                    pairs.push(self.pair(&row.key, doc)?);
                }
                last = Some(row.key);
            }
            if is_end {
                self.tell(&mut pairs, range, descending, walker)?;
                return Ok(());
            }
            match &last {
                Some(seen) => start.clone_from(seen),
                None => return Ok(()),
            }
        }
    }
}
