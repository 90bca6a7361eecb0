//! What must hold of every tree, and of two trees that saw the same histories.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

pub(crate) fn rev(text: &str) -> Rev {
    text.parse().unwrap()
}

pub(crate) fn revs(texts: &[&str]) -> Vec<Rev> {
    texts.iter().map(|text| rev(text)).collect()
}

fn tree(histories: &[(&[&str], bool)]) -> RevTree {
    let mut tree = RevTree::new();
    for (history, deleted) in histories {
        tree.merge(&revs(history), *deleted).unwrap();
    }
    tree
}

fn texts(leaves: &[Leaf]) -> Vec<String> {
    let text = |leaf: &Leaf| format!("{}{}", leaf.rev, if leaf.deleted { " deleted" } else { "" });
    leaves.iter().map(text).collect()
}

#[test]
fn a_merge_says_what_it_did() {
    let mut tree = RevTree::new();
    let mut merge = |history: &[&str]| tree.merge(&revs(history), false).unwrap();
    assert_eq!(merge(&["2-b", "1-a"]), Merged::NewBranch);
    assert_eq!(merge(&["3-c", "2-b"]), Merged::NewLeaf);
    assert_eq!(merge(&["3-d", "2-b"]), Merged::NewBranch);
    assert_eq!(merge(&["2-b", "1-a"]), Merged::Known);
    assert_eq!(merge(&["1-a"]), Merged::Known);
    assert_eq!(merge(&["5-f"]), Merged::NewBranch);
    assert_eq!(merge(&["5-f", "4-e", "3-d"]), Merged::Deeper);
    assert_eq!(texts(&tree.leaves()), ["5-f", "3-c"]);
}

#[test]
fn a_history_that_does_not_descend_is_refused_whole() {
    let mut tree = RevTree::new();
    for bad in [
        vec![],
        revs(&["3-c", "1-a"]),
        revs(&["2-b", "2-a"]),
        revs(&["1-a", "2-b"]),
    ] {
        assert_eq!(tree.merge(&bad, false), Err(BadHistory));
    }
    assert!(tree.is_empty());
}

#[test]
fn the_winner_is_alive_then_longest_then_highest() {
    let winner = |histories: &[(&[&str], bool)]| tree(histories).winner().unwrap().rev.to_string();
    assert_eq!(
        winner(&[(&["2-a", "1-a"], false), (&["2-b", "1-a"], false)]),
        "2-b"
    );
    assert_eq!(
        winner(&[(&["3-a", "2-a", "1-a"], false), (&["2-b", "1-a"], false)]),
        "3-a"
    );
    assert_eq!(
        winner(&[(&["3-a", "2-a", "1-a"], true), (&["2-b", "1-a"], false)]),
        "2-b"
    );
    assert_eq!(
        winner(&[(&["3-a", "2-a", "1-a"], true), (&["2-b", "1-a"], true)]),
        "3-a"
    );
    // By number, not by text.
    assert_eq!(winner(&[(&["10-a"], false), (&["9-b"], false)]), "10-a");
}

#[test]
fn conflicts_are_the_other_leaves() {
    let tree = tree(&[
        (&["3-c", "2-b", "1-a"], false),
        (&["2-x", "1-a"], false),
        (&["4-y", "3-y", "2-b"], true),
    ]);
    assert_eq!(texts(&tree.leaves()), ["3-c", "2-x", "4-y deleted"]);
    assert_eq!(tree.conflicts(), revs(&["2-x"]));
    assert_eq!(tree.deleted_conflicts(), revs(&["4-y"]));
    assert_eq!(tree.history_of(&rev("4-y")), revs(&["4-y", "3-y", "2-b", "1-a"]));
    assert_eq!(tree.history_of(&rev("4-z")), []);
    assert_eq!(texts(&tree.leaves_after(&rev("2-b"))), ["3-c", "4-y deleted"]);
    assert_eq!(texts(&tree.leaves_after(&rev("2-x"))), ["2-x"]);
    assert!(tree.leaf(&rev("2-b")).is_none());
}

#[test]
fn a_deletion_that_was_followed_is_a_deletion_no_more() {
    let tree = tree(&[(&["2-b", "1-a"], true), (&["3-c", "2-b"], false)]);
    assert_eq!(texts(&tree.leaves()), ["3-c"]);
    assert_eq!(tree.winner().unwrap().rev, rev("3-c"));
}

#[test]
fn two_parents_of_one_revision_are_both_followed() {
    let both = tree(&[(&["2-c", "1-a"], false), (&["2-c", "1-b"], false)]);
    assert_eq!(texts(&both.leaves()), ["2-c"]);
    assert_eq!(both.history_of(&rev("2-c")), revs(&["2-c", "1-b"]));
    assert_eq!(both, tree(&[(&["2-c", "1-b"], false), (&["2-c", "1-a"], false)]));
    assert_eq!(RevTree::decode(&both.encode()), Ok(both));
}

#[test]
fn stemming_keeps_as_many_revisions_of_each_branch() {
    let mut tree = tree(&[
        (&["5-e", "4-d", "3-c", "2-b", "1-a"], false),
        (&["3-x", "2-b", "1-a"], false),
    ]);
    assert!(!tree.stem(5));
    assert!(tree.stem(2));
    assert_eq!(tree.history_of(&rev("5-e")), revs(&["5-e", "4-d"]));
    assert_eq!(tree.history_of(&rev("3-x")), revs(&["3-x", "2-b"]));
    assert_eq!(tree.len(), 4);
    // A limit of none would forget the document.
    assert!(tree.stem(0));
    assert_eq!(texts(&tree.leaves()), ["5-e", "3-x"]);
    assert_eq!(tree.len(), 2);
}

#[test]
fn purging_a_leaf_takes_its_branch_alone() {
    let mut tree = tree(&[(&["3-c", "2-b", "1-a"], false), (&["3-x", "2-x", "1-a"], false)]);
    assert_eq!(tree.purge(&revs(&["3-c", "2-b", "9-z"])), revs(&["3-c"]));
    assert_eq!(texts(&tree.leaves()), ["3-x"]);
    assert_eq!(tree.len(), 3);
    assert_eq!(tree.purge(&revs(&["3-x"])), revs(&["3-x"]));
    assert!(tree.is_empty());
}

/// The example of the format: a conflict of two branches, one with a hash that is no digest.
#[test]
fn the_bytes_are_as_drawn() {
    let a = "1-61616161616161616161616161616161";
    let b = "2-62626262626262626262626262626262";
    let tree = tree(&[(&[b, a], false), (&["2-x", a], true)]);
    let mut expected = vec![1, 2];
    expected.extend([0, 2, 2]);
    expected.extend([b'b'; 16]);
    expected.extend([b'a'; 16]);
    expected.extend([DELETED_WITH_LENGTH_JOINS, 2, 1, 1, b'x', 0]);
    expected.extend([b'a'; 16]);
    expected.push(0);
    assert_eq!(tree.encode(), expected);
    assert_eq!(RevTree::decode(&expected), Ok(tree.clone()));
    assert_eq!(leaves_of(&expected), Ok(tree.leaves()));
    expected[0] = 2;
    assert_eq!(RevTree::decode(&expected), Err(CodecError::Newer(2)));
}

const DELETED_WITH_LENGTH_JOINS: u8 = 1 | 4 | 8;

/// Histories as honest peers make them: each edit follows one earlier edit, or none.
fn edits() -> impl Strategy<Value = Vec<(Vec<Rev>, bool)>> {
    let edit = (any::<Option<Index>>(), any::<bool>(), "[a-c]|[0-9a-f]{32}");
    prop::collection::vec(edit, 1..16).prop_map(|edits| {
        let mut made: Vec<(Vec<Rev>, bool)> = Vec::new();
        for (number, (parent, deleted, hash)) in edits.into_iter().enumerate() {
            let above = parent
                .filter(|_| number > 0)
                .map(|index| index.get(&made).0.clone());
            let above = above.unwrap_or_default();
            let generation = above.first().map_or(0, Rev::generation) + 1;
            // Two edits never have the same hash.
            let hash = match hash.len() {
                32 => format!("{number:02x}{}", &hash[2..]),
                _ => format!("{hash}{number}"),
            };
            let mut history = vec![rev(&format!("{generation}-{hash}"))];
            history.extend(above);
            made.push((history, deleted));
        }
        made
    })
}

fn merged(edits: &[(Vec<Rev>, bool)]) -> RevTree {
    let mut tree = RevTree::new();
    for (history, deleted) in edits {
        tree.merge(history, *deleted).unwrap();
    }
    tree
}

proptest! {
    #[test]
    fn any_order_of_merging_gives_the_same_tree(
        (edits, shuffled) in edits().prop_flat_map(|edits| (Just(edits.clone()), Just(edits).prop_shuffle())),
        again in any::<Index>(),
    ) {
        let tree = merged(&edits);
        let mut other = merged(&shuffled);
        prop_assert_eq!(&tree, &other);
        // What comes again changes nothing.
        let (history, deleted) = again.get(&shuffled);
        prop_assert_eq!(other.merge(history, *deleted), Ok(Merged::Known));
        prop_assert_eq!(&tree, &other);
        prop_assert_eq!(tree.encode(), other.encode());
    }

    #[test]
    fn bytes_round_trip_and_their_leaves_are_the_trees(edits in edits(), limit in 1_u32..20) {
        let mut tree = merged(&edits);
        tree.stem(limit);
        let bytes = tree.encode();
        prop_assert_eq!(leaves_of(&bytes), Ok(tree.leaves()));
        prop_assert_eq!(RevTree::decode(&bytes), Ok(tree));
    }

    #[test]
    fn stemming_changes_no_leaf_and_no_winner(edits in edits(), limit in 1_u32..20) {
        let tree = merged(&edits);
        let mut stemmed = tree.clone();
        stemmed.stem(limit);
        prop_assert_eq!(stemmed.leaves(), tree.leaves());
        prop_assert_eq!(stemmed.winner(), tree.winner());
        for leaf in stemmed.leaves() {
            let mut history = tree.history_of(&leaf.rev);
            let kept = stemmed.history_of(&leaf.rev);
            prop_assert!(kept.len() >= history.len().min(limit as usize));
            history.truncate(kept.len());
            prop_assert_eq!(kept, history);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), edits in edits(), at in any::<Index>()) {
        let _ = RevTree::decode(&bytes);
        let _ = leaves_of(&bytes);
        let whole = merged(&edits).encode();
        let at = at.index(whole.len());
        prop_assert!(RevTree::decode(&whole[..at]).is_err());
        let mut damaged = whole;
        damaged[at] ^= bytes.first().copied().unwrap_or(1);
        let _ = RevTree::decode(&damaged);
        let _ = leaves_of(&damaged);
    }
}
