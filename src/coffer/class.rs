//! The class of a blob: whether it may be collected once nothing names it.

/// Who keeps a blob alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A part, schema or attachment: kept while something names it, collectable afterwards.
    Part,
    /// A client put it by itself: kept until it is deleted.
    Pinned,
}
