//! A revision tree as bytes: version 1.
//!
//! ```text
//! u8      1, the version
//! varint  number of chains; each is a revision and the ancestors that no chain before it has:
//!   u8      1 deleted | 2 not a leaf | 4 hashes with their length | 8 goes on in another chain
//!   varint  generation of its first revision
//!   varint  number of its revisions, each one generation below the one before
//!   hash    of each: 16 bytes; with flag 4 a varint length before them, 0 for a digest of 16 bytes
//!   hash    with flag 8: of the revision that the last one follows
//! varint  number of further parents (of revisions with more than one); each:
//!   varint  generation of the revision
//!   hash    of the revision, with its length, then of its parent, with its length
//! ```
//!
//! Leaves come first, the winner before all: who wants no more than those reads no further. Numbers are LEB128.

use crate::id::{Rev, RevHash};

use super::{Leaf, Node, RevTree};

/// The version that is written.
const VERSION: u8 = 1;

const DELETED: u8 = 1;
const NOT_A_LEAF: u8 = 2;
const WITH_LENGTH: u8 = 4;
const JOINS: u8 = 8;

/// Why bytes are no revision tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A newer Refuge wrote them.
    #[error("a revision tree of version {0}")]
    Newer(u8),
    /// They end early, go on too long, or contradict themselves.
    #[error("a damaged revision tree")]
    Damaged,
}

impl RevTree {
    /// The tree as bytes; the same tree gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let leaves = self.leaves();
        let mut chains = Vec::new();
        let mut further = Vec::new();
        let mut taken = std::collections::BTreeSet::new();
        let rest = self.nodes.keys().rev().cloned();
        for first in leaves.into_iter().map(|leaf| leaf.rev).chain(rest) {
            let mut chain = Vec::new();
            let mut next = Some(first);
            while let Some(rev) = next.clone().filter(|rev| taken.insert(rev.clone())) {
                next = self.parent_of(&rev);
                chain.push(rev);
            }
            if !chain.is_empty() {
                chains.push((chain, next));
            }
        }
        for (rev, node) in &self.nodes {
            for parent in node.parents.iter().rev().skip(1) {
                further.push((rev, parent));
            }
        }
        let mut out = Vec::with_capacity(2 + 18 * self.nodes.len());
        out.push(VERSION);
        put_number(&mut out, chains.len() as u64);
        for (chain, joined) in &chains {
            self.put_chain(&mut out, chain, joined.as_ref());
        }
        put_number(&mut out, further.len() as u64);
        for (rev, parent) in further {
            put_number(&mut out, u64::from(rev.generation()));
            put_hash(&mut out, rev.hash(), true);
            put_hash(&mut out, parent, true);
        }
        out
    }

    /// Reads what [`RevTree::encode`] wrote.
    ///
    /// # Errors
    /// `CodecError`: where the bytes are damaged, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<RevTree, CodecError> {
        let mut input = Input::begin(bytes)?;
        let mut tree = RevTree::new();
        for _ in 0..input.number()? {
            let chain = input.chain()?;
            tree.take_chain(&mut input, &chain)?;
        }
        for _ in 0..input.number()? {
            let generation = input.generation()?;
            let child = rev(generation, input.hash(true)?)?;
            let parent = rev(generation - 1, input.hash(true)?)?;
            if !tree.contains(&child) || !tree.contains(&parent) {
                return Err(CodecError::Damaged);
            }
            tree.link(&child, &parent);
        }
        match input.bytes {
            [] => Ok(tree),
            _ => Err(CodecError::Damaged),
        }
    }

    fn put_chain(&self, out: &mut Vec<u8>, chain: &[Rev], joined: Option<&Rev>) {
        let is_text = |rev: &Rev| matches!(rev.hash(), RevHash::Text(_));
        let node = &self.nodes[&chain[0]];
        let with_length = chain.iter().chain(joined).any(is_text);
        out.push(
            flag(node.is_deleted, DELETED)
                | flag(node.has_child, NOT_A_LEAF)
                | flag(with_length, WITH_LENGTH)
                | flag(joined.is_some(), JOINS),
        );
        put_number(out, u64::from(chain[0].generation()));
        put_number(out, chain.len() as u64);
        for rev in chain.iter().chain(joined) {
            put_hash(out, rev.hash(), with_length);
        }
    }

    fn take_chain(&mut self, input: &mut Input<'_>, chain: &Chain) -> Result<(), CodecError> {
        let mut child: Option<Rev> = None;
        for below in 0..chain.revisions {
            let rev = rev(chain.generation - below, input.hash(chain.has(WITH_LENGTH))?)?;
            let node = Node {
                is_deleted: child.is_none() && chain.has(DELETED),
                ..Node::default()
            };
            if self.nodes.insert(rev.clone(), node).is_some() {
                return Err(CodecError::Damaged);
            }
            if let Some(child) = child {
                self.link(&child, &rev);
            }
            child = Some(rev);
        }
        if let Some(child) = child.filter(|_| chain.has(JOINS)) {
            let parent = rev(child.generation() - 1, input.hash(chain.has(WITH_LENGTH))?)?;
            if !self.contains(&parent) {
                return Err(CodecError::Damaged);
            }
            self.link(&child, &parent);
        }
        Ok(())
    }
}

/// The leaves of an encoded tree, as [`RevTree::leaves`] answers them, without decoding the rest.
///
/// # Errors
/// [`CodecError`].
pub(in crate::blanket) fn leaves_of(bytes: &[u8]) -> Result<Vec<Leaf>, CodecError> {
    let mut input = Input::begin(bytes)?;
    let mut leaves = Vec::new();
    for _ in 0..input.number()? {
        let chain = input.chain()?;
        if chain.has(NOT_A_LEAF) {
            break;
        }
        leaves.push(Leaf {
            rev: rev(chain.generation, input.hash(chain.has(WITH_LENGTH))?)?,
            deleted: chain.has(DELETED),
        });
        let rest = chain.revisions - 1 + u32::from(chain.has(JOINS));
        match chain.has(WITH_LENGTH) {
            true => (0..rest).try_for_each(|_| input.hash(true).map(drop))?,
            false => input.take(rest as usize * 16).map(drop)?,
        }
    }
    Ok(leaves)
}

/// The head of a chain.
struct Chain {
    flags: u8,
    generation: u32,
    /// At least 1, and at most as many as there are generations.
    revisions: u32,
}

impl Chain {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What is still to be read.
struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn begin(bytes: &'a [u8]) -> Result<Input<'a>, CodecError> {
        let mut input = Input { bytes };
        match input.byte()? {
            VERSION => Ok(input),
            0 => Err(CodecError::Damaged),
            newer => Err(CodecError::Newer(newer)),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(CodecError::Damaged)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, CodecError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32, CodecError> {
        let mut number = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(number).map_err(|_| CodecError::Damaged);
            }
        }
        Err(CodecError::Damaged)
    }

    fn generation(&mut self) -> Result<u32, CodecError> {
        match self.number()? {
            0 => Err(CodecError::Damaged),
            generation => Ok(generation),
        }
    }

    fn chain(&mut self) -> Result<Chain, CodecError> {
        let flags = self.byte()?;
        let (generation, revisions) = (self.generation()?, self.number()?);
        if flags >= 2 * JOINS || revisions == 0 || revisions > generation {
            return Err(CodecError::Damaged);
        }
        Ok(Chain {
            flags,
            generation,
            revisions,
        })
    }

    fn hash(&mut self, with_length: bool) -> Result<RevHash, CodecError> {
        let len = match with_length {
            true => self.number()? as usize,
            false => 0,
        };
        if len == 0 {
            let digest = self.take(16)?.try_into().map_err(|_| CodecError::Damaged)?;
            return Ok(RevHash::Digest(digest));
        }
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| CodecError::Damaged)?;
        match text.parse() {
            Ok(hash @ RevHash::Text(_)) => Ok(hash),
            _ => Err(CodecError::Damaged),
        }
    }
}

fn rev(generation: u32, hash: RevHash) -> Result<Rev, CodecError> {
    Rev::new(generation, hash).ok_or(CodecError::Damaged)
}

fn flag(is_set: bool, flag: u8) -> u8 {
    if is_set { flag } else { 0 }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7f) as u8);
}

fn put_hash(out: &mut Vec<u8>, hash: &RevHash, with_length: bool) {
    if with_length {
        let len = match hash {
            RevHash::Digest(_) => 0,
            RevHash::Text(text) => text.len(),
        };
        put_number(out, len as u64);
    }
    out.extend_from_slice(hash.as_bytes());
}
