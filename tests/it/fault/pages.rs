//! The bytes of one file in the fault file system: what a reader sees, and what the medium is sure to hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::medium::Crash;
use super::seed::Rng;

/// The size of a page in bytes: the unit in which a crash keeps or loses data.
pub(crate) const PAGE_BYTES: usize = 4096;

/// How many versions of one unflushed page are remembered for a reordering crash; the newest is always among them.
const VERSIONS_KEPT: usize = 6;

type Page = Arc<[u8; PAGE_BYTES]>;

/// A sparse file: pages that were never written read as zeros.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    size: u64,
    pages: BTreeMap<u64, Page>,
}

impl Content {
    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(len as u64));
        let mut bytes = Vec::with_capacity(len);
        let mut at = offset;
        while at < end {
            let (number, start) = split(at);
            let take = (PAGE_BYTES - start).min(usize::try_from(end - at).unwrap_or(PAGE_BYTES));
            match self.pages.get(&number) {
                Some(page) => bytes.extend_from_slice(&page[start..start + take]),
                None => bytes.resize(bytes.len() + take, 0),
            }
            at += take as u64;
        }
        bytes
    }

    fn set(&mut self, number: u64, version: Option<Page>) {
        match version {
            Some(page) => self.pages.insert(number, page),
            None => self.pages.remove(&number),
        };
    }

    /// Removes what lies behind the end, as no file system shows it.
    fn cut_to_size(&mut self) {
        let (last, used) = split(self.size);
        self.pages
            .retain(|number, _| *number < last || (*number == last && used > 0));
        if let Some(page) = self.pages.get_mut(&last) {
            Arc::make_mut(page)[used..].fill(0);
        }
    }
}

/// A file's current bytes, its flushed bytes, and every way between them that a crash may leave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages {
    current: Content,
    flushed: Content,
    /// The versions each page has had since the last flush, oldest first; `None` is a hole.
    unflushed: BTreeMap<u64, Vec<Option<Page>>>,
    /// The sizes the file has had since the last flush.
    sizes: Vec<u64>,
}

impl Pages {
    pub(crate) fn size(&self) -> u64 {
        self.current.size
    }

    /// Pages that hold data now.
    pub(crate) fn used(&self) -> usize {
        self.current.pages.len()
    }

    /// How many pages a write would add.
    pub(crate) fn missing(&self, offset: u64, len: usize) -> usize {
        if len == 0 {
            return 0;
        }
        let last = split(offset + len as u64 - 1).0;
        (split(offset).0..=last)
            .filter(|number| !self.current.pages.contains_key(number))
            .count()
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        self.current.read(offset, len)
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let (number, start) = split(at);
            let take = (PAGE_BYTES - start).min(rest.len());
            let mut page = self
                .current
                .pages
                .get(&number)
                .cloned()
                .unwrap_or_else(empty_page);
            Arc::make_mut(&mut page)[start..start + take].copy_from_slice(&rest[..take]);
            self.put(number, Some(page));
            rest = &rest[take..];
            at += take as u64;
        }
        if at > self.current.size {
            self.set_size(at);
        }
    }

    pub(crate) fn truncate(&mut self, size: u64) {
        if size < self.current.size {
            let (last, used) = split(size);
            let behind: Vec<u64> = self
                .current
                .pages
                .range(last..)
                .map(|(number, _)| *number)
                .collect();
            for number in behind {
                if number == last && used > 0 {
                    let mut page = self.current.pages[&number].clone();
                    Arc::make_mut(&mut page)[used..].fill(0);
                    self.put(number, Some(page));
                } else {
                    self.put(number, None);
                }
            }
        }
        self.set_size(size);
    }

    /// Makes a hole of the bytes, leaving the size (fallocate's punch).
    pub(crate) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.current.size);
        let mut at = offset;
        while at < end {
            let (number, start) = split(at);
            let take = (PAGE_BYTES - start).min(usize::try_from(end - at).unwrap_or(PAGE_BYTES));
            if let Some(page) = self.current.pages.get(&number).cloned() {
                let mut page = page;
                Arc::make_mut(&mut page)[start..start + take].fill(0);
                let whole = take == PAGE_BYTES;
                self.put(number, (!whole).then_some(page));
            }
            at += take as u64;
        }
    }

    /// Everything written so far is on the medium. Returns how many bytes of pages that took.
    pub(crate) fn flush(&mut self) -> u64 {
        let written = self.unflushed.len() * PAGE_BYTES;
        for number in std::mem::take(&mut self.unflushed).into_keys() {
            self.flushed.set(number, self.current.pages.get(&number).cloned());
        }
        self.flushed.size = self.current.size;
        self.sizes.clear();
        written as u64
    }

    /// A flush failed: what is unflushed stays readable, but no later flush writes it.
    pub(crate) fn forget(&mut self) {
        self.unflushed.clear();
        self.sizes.clear();
    }

    /// The file as a crash leaves it, with nothing unflushed.
    pub(crate) fn after(&self, crash: Crash, rng: &mut Rng) -> Self {
        let mut content = self.flushed.clone();
        match crash {
            Crash::DropAll => {}
            Crash::KeepAll => content = self.current.clone(),
            Crash::RandomPages => {
                for number in self.unflushed.keys() {
                    if rng.one_in(2) {
                        content.set(*number, self.current.pages.get(number).cloned());
                    }
                }
                if rng.one_in(2) {
                    content.size = self.current.size;
                }
            }
            Crash::Reordered => {
                for (number, versions) in &self.unflushed {
                    let choice = rng.below(versions.len() + 1);
                    if choice > 0 {
                        content.set(*number, versions[choice - 1].clone());
                    }
                }
                let choice = rng.below(self.sizes.len() + 1);
                if choice > 0 {
                    content.size = self.sizes[choice - 1];
                }
            }
        }
        content.cut_to_size();
        Self {
            flushed: content.clone(),
            current: content,
            ..Self::default()
        }
    }

    fn put(&mut self, number: u64, version: Option<Page>) {
        let versions = self.unflushed.entry(number).or_default();
        if versions.len() == VERSIONS_KEPT {
            versions.remove(VERSIONS_KEPT / 2);
        }
        versions.push(version.clone());
        self.current.set(number, version);
    }

    fn set_size(&mut self, size: u64) {
        if size != self.current.size {
            self.current.size = size;
            if self.sizes.len() == VERSIONS_KEPT {
                self.sizes.remove(VERSIONS_KEPT / 2);
            }
            self.sizes.push(size);
        }
    }
}

/// The page a byte lies in, and its place there.
fn split(offset: u64) -> (u64, usize) {
    let page = PAGE_BYTES as u64;
    (
        offset / page,
        usize::try_from(offset % page).expect("less than a page"),
    )
}

fn empty_page() -> Page {
    Arc::new([0; PAGE_BYTES])
}
