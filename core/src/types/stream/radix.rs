//! How many nodes Redis' radix tree would have for the nodes of a stream: XINFO STREAM reports it.
//!
//! A key has 16 bytes. In the tree, a node stands for each place where keys part, for each run of bytes that leads to
//! such a place or to the end of a key, and for the end of each key.

use super::{Log, StreamId};

/// The bytes of a key.
const KEY_LEN: i32 = 16;

impl Log {
    /// See the module's documentation. O(nodes).
    pub fn radix_tree_nodes(&self) -> usize {
        count(self.nodes().map(|(key, _)| key))
    }
}

/// How many bytes two keys have in common.
fn common_len(a: StreamId, b: StreamId) -> i32 {
    let differing = (u128::from(a.ms ^ b.ms) << 64) | u128::from(a.seq ^ b.seq);
    differing.leading_zeros() as i32 / 8
}

/// The nodes of the tree of these keys, which are in order.
fn count(keys: impl Iterator<Item = StreamId>) -> usize {
    // 1 if there are bytes between the byte at which keys part (-1: the root) and an inner node or an end.
    let run = |parting: i32, at: i32| usize::from(at > parting + 1);
    let mut nodes = 0;
    // The places at which the last key parts from others, each below the one before.
    let mut partings: Vec<i32> = Vec::new();
    let mut last_key = None;
    for key in keys {
        if let Some(last_key) = last_key {
            let common = common_len(last_key, key);
            let own = partings.last().copied().unwrap_or(-1).max(common);
            nodes += 1 + run(own, KEY_LEN);
            while let Some(&deepest) = partings.last().filter(|&&deepest| deepest > common) {
                partings.pop();
                nodes += 1 + run(partings.last().copied().unwrap_or(-1).max(common), deepest);
            }
            if partings.last() != Some(&common) {
                partings.push(common);
            }
        }
        last_key = Some(key);
    }
    if last_key.is_none() {
        return 1;
    }
    nodes += 1 + run(partings.last().copied().unwrap_or(-1), KEY_LEN);
    while let Some(deepest) = partings.pop() {
        nodes += 1 + run(partings.last().copied().unwrap_or(-1), deepest);
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Redis 7.0.15 reports.
    #[test]
    fn the_nodes_are_those_of_redis() {
        let count_of = |ids: &[(u64, u64)]| count(ids.iter().map(|&(ms, seq)| StreamId { ms, seq }));
        assert_eq!(count_of(&[]), 1);
        assert_eq!(count_of(&[(1, 0)]), 2);
        assert_eq!(count_of(&[(200, 176), (10205259303344851545, 12680672662130791111)]), 5);
        let nine = [
            (40, 155),
            (71, 62),
            (107, 78),
            (137, 5475402445344671221),
            (10423, 189),
            (39575, 2180017702693693183),
            (44680, 10898423115579722374),
            (5283117108752195993, 159),
            (5406797926122462137, 3),
        ];
        assert_eq!(count_of(&nine), 22);
    }
}
