//! The items of an array in a JSON answer, one after the other as they come, so that an answer of any length is held one item at a
//! time. What an item is, whoever takes it finds out.

use bytes::Bytes;

/// Finds the items of the array that is the member `name` of the outermost object, or of the outermost array itself.
pub(super) struct Items {
    state: State,
    /// What is read of an item, or of what stands before the array.
    held: Vec<u8>,
    item_bytes_max: usize,
    depth: u32,
    text: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first bracket of the array.
    Before,
    /// Between two items.
    Between,
    InItem,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
}

/// What stands before the array: `{"results":` with blanks.
const BEFORE_BYTES_MAX: usize = 1024;

/// The answer has no such array, or an item is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoItems;

impl Items {
    /// For items of at most so many bytes.
    pub(super) fn new(item_bytes_max: usize) -> Items {
        Items {
            state: State::Before,
            held: Vec::new(),
            item_bytes_max,
            depth: 0,
            text: Text::Outside,
        }
    }

    /// Takes bytes up to the end of an item: the item, where one ended, and what is left of `bytes`.
    ///
    /// # Errors
    /// [`NoItems`].
    pub(super) fn take(&mut self, bytes: &mut Bytes) -> Result<Option<Vec<u8>>, NoItems> {
        for at in 0..bytes.len() {
            let byte = bytes[at];
            match self.state {
                State::Before => self.before(byte)?,
                State::After => {}
                State::Between => match byte {
                    b',' | b' ' | b'\n' | b'\r' | b'\t' => {}
                    b']' => self.state = State::After,
                    b'{' => {
                        self.state = State::InItem;
                        self.depth = 1;
                        self.held.push(byte);
                    }
                    _ => return Err(NoItems),
                },
                State::InItem => {
                    self.held.push(byte);
                    if self.held.len() > self.item_bytes_max {
                        return Err(NoItems);
                    }
                    if self.ends(byte) {
                        self.state = State::Between;
                        let _ = bytes.split_to(at + 1);
                        return Ok(Some(std::mem::take(&mut self.held)));
                    }
                }
            }
        }
        bytes.clear();
        Ok(None)
    }

    /// Bytes of an item that has not ended.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Whether the array has ended.
    pub(super) fn is_over(&self) -> bool {
        self.state == State::After
    }

    fn before(&mut self, byte: u8) -> Result<(), NoItems> {
        if byte == b'[' {
            let before: String = self.held.iter().map(|byte| char::from(*byte)).collect();
            let dense: String = before.split_whitespace().collect();
            if !dense.is_empty() && dense != "{\"results\":" {
                return Err(NoItems);
            }
            self.held.clear();
            self.state = State::Between;
            return Ok(());
        }
        self.held.push(byte);
        match self.held.len() > BEFORE_BYTES_MAX {
            true => Err(NoItems),
            false => Ok(()),
        }
    }

    /// Whether an item ends with this byte.
    fn ends(&mut self, byte: u8) -> bool {
        match (self.text, byte) {
            (Text::Escaped, _) => self.text = Text::Inside,
            (Text::Inside, b'\\') => self.text = Text::Escaped,
            (Text::Inside, b'"') => self.text = Text::Outside,
            (Text::Inside, _) => {}
            (Text::Outside, b'"') => self.text = Text::Inside,
            (Text::Outside, b'{' | b'[') => self.depth += 1,
            (Text::Outside, b'}' | b']') => self.depth -= 1,
            (Text::Outside, _) => {}
        }
        self.depth == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn items(text: &str, size: usize, most: usize) -> Result<(Vec<Value>, bool), NoItems> {
        let (mut items, mut found) = (Items::new(most), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            let mut bytes = Bytes::copy_from_slice(piece);
            while let Some(item) = items.take(&mut bytes)? {
                found.push(serde_json::from_slice(&item).map_err(|_| NoItems)?);
            }
        }
        Ok((found, items.is_over()))
    }

    #[test]
    fn items_come_whole_whatever_is_in_them() {
        let wanted = vec![json!({"a": "}]\"\\"}), json!({"b": [{"c": []}]}), json!({})];
        for text in [
            json!({"results": wanted}).to_string(),
            format!(
                "{{ \"results\" : [\n{},\n{},{}\n]}}\n",
                wanted[0], wanted[1], wanted[2]
            ),
            Value::from(wanted.clone()).to_string(),
        ] {
            for size in [1, 2, 7, 1000] {
                assert_eq!(
                    items(&text, size, 100),
                    Ok((wanted.clone(), true)),
                    "{text} {size}"
                );
            }
        }
    }

    #[test]
    fn what_has_no_items_is_refused() {
        for wrong in [
            "{\"rows\":[",
            "x[",
            "{\"results\":[1]}",
            "{\"results\":[\"a\"]}",
            "[{\"a\":\"bcdefghijk\"}]",
        ] {
            assert_eq!(items(wrong, 3, 10), Err(NoItems), "{wrong}");
        }
        assert_eq!(items(&" ".repeat(5000), 100, 10), Err(NoItems));
        assert_eq!(
            items("{\"results\":[{\"a\":1}", 3, 100).map(|(found, over)| (found.len(), over)),
            Ok((1, false))
        );
        assert_eq!(
            items("{\"error\":\"x\"}", 3, 100).map(|(found, over)| (found.len(), over)),
            Ok((0, false))
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[\\[\\]{}\",:a\\\\ ]{0,40}", size in 1..9_usize) {
            let _ = items(&text, size, 20);
        }
    }
}
