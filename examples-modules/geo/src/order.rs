//! Sorting what a search has found.
//!
//! Members at the same distance are shown in the order in which Redis shows them. All results are sorted by merging, which
//! keeps the order of equal ones. When only the first few are asked for, no more than these is sorted, by the quicksort of
//! Bentley and McIlroy ("Engineering a Sort Function", 1993), which leaves aside each part in which none of these lies;
//! equal elements then come in that algorithm's order.

use std::cmp::Ordering;
use std::ops::Range;

/// Sorts, so that the first `count` elements are the least ones, in order; the others come in any order.
pub fn sort_first<T>(elements: &mut [T], count: usize, compare: impl Fn(&T, &T) -> Ordering) {
    if count >= elements.len() {
        elements.sort_by(compare);
    } else if count > 0 {
        sort_parts(elements, 0..elements.len(), count - 1, &compare);
    }
}

/// Parts shorter than this are sorted by insertion.
const INSERTION_LEN: usize = 7;
/// In parts longer than this, the pivot is the median of nine.
const NINTHER_LEN: usize = 40;

/// Sorts what of `part` lies at or before `last`.
fn sort_parts<T>(
    elements: &mut [T],
    mut part: Range<usize>,
    last: usize,
    compare: &impl Fn(&T, &T) -> Ordering,
) {
    loop {
        let len = part.len();
        if len < INSERTION_LEN {
            insertion_sort(&mut elements[part], compare);
            return;
        }
        let pivot = part.start + pivot(&elements[part.clone()], compare);
        elements.swap(part.start, pivot);
        let (less, greater) = partition(&mut elements[part.clone()], compare);

        // Equal elements lie between the two, where they stay.
        let after = part.end - greater;
        let before = part.start..part.start + less;
        // Half of the depth of this recursion is saved by the loop; the rest is as deep as the paper's.
        if less > 1 && before.start <= last {
            sort_parts(elements, before, last, compare);
        }
        if greater <= 1 || after > last {
            return;
        }
        part = after..part.end;
    }
}

fn insertion_sort<T>(elements: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) {
    for at in 1..elements.len() {
        let mut at = at;
        while at > 0 && compare(&elements[at - 1], &elements[at]).is_gt() {
            elements.swap(at - 1, at);
            at -= 1;
        }
    }
}

/// Where an element about in the middle of the order is: the middle one, or a median of three, or of three such medians.
fn pivot<T>(elements: &[T], compare: &impl Fn(&T, &T) -> Ordering) -> usize {
    let len = elements.len();
    let median = |a: usize, b: usize, c: usize| {
        let is_less = |a: usize, b: usize| compare(&elements[a], &elements[b]).is_lt();
        let is_greater = |a: usize, b: usize| compare(&elements[a], &elements[b]).is_gt();
        if is_less(a, b) {
            if is_less(b, c) {
                b
            } else if is_less(a, c) {
                c
            } else {
                a
            }
        } else if is_greater(b, c) {
            b
        } else if is_less(a, c) {
            a
        } else {
            c
        }
    };
    let (mut low, mut middle, mut high) = (0, len / 2, len - 1);
    if len == INSERTION_LEN {
        return middle;
    }
    if len > NINTHER_LEN {
        let eighth = len / 8;
        low = median(low, low + eighth, low + 2 * eighth);
        middle = median(middle - eighth, middle, middle + eighth);
        high = median(high - 2 * eighth, high - eighth, high);
    }
    median(low, middle, high)
}

/// Splits elements by the first one: what is less comes first, then what is equal, then what is greater. How many are
/// less, and how many greater.
///
/// While it runs, equal elements are collected at both ends; then they are swapped into the middle.
fn partition<T>(elements: &mut [T], compare: &impl Fn(&T, &T) -> Ordering) -> (usize, usize) {
    let len = elements.len();
    // Equal ones before `equal_low` and at or after `equal_high`; less before `low`, greater at or after `high`.
    let (mut equal_low, mut low, mut high, mut equal_high) = (1, 1, len, len);
    loop {
        while low < high {
            match compare(&elements[low], &elements[0]) {
                Ordering::Greater => break,
                Ordering::Equal => {
                    elements.swap(equal_low, low);
                    equal_low += 1;
                }
                Ordering::Less => {}
            }
            low += 1;
        }
        while low < high {
            match compare(&elements[high - 1], &elements[0]) {
                Ordering::Less => break,
                Ordering::Equal => {
                    equal_high -= 1;
                    elements.swap(high - 1, equal_high);
                }
                Ordering::Greater => {}
            }
            high -= 1;
        }
        if low == high {
            break;
        }
        elements.swap(low, high - 1);
        low += 1;
        high -= 1;
    }

    let (less, greater) = (low - equal_low, equal_high - high);
    let moved = equal_low.min(less);
    for at in 0..moved {
        elements.swap(at, low - moved + at);
    }
    let moved = greater.min(len - equal_high);
    for at in 0..moved {
        elements.swap(low + at, len - moved + at);
    }
    (less, greater)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardis_modules_testing::Random;

    #[test]
    fn the_first_elements_are_the_least_in_order() {
        let mut random = Random::new("the_first_elements_are_the_least_in_order");
        for _ in 0..3_000 {
            let len = random.below(120) as usize;
            let values = 1 + random.below(60);
            let elements: Vec<u64> = (0..len).map(|_| random.below(values)).collect();
            let mut sorted = elements.clone();
            sorted.sort_unstable();
            for count in [0, 1, 2, len / 3, len / 2, len.saturating_sub(1), len, len + 5] {
                let mut ours = elements.clone();
                sort_first(&mut ours, count, u64::cmp);
                let count = count.min(len);
                assert_eq!(ours[..count], sorted[..count], "{count} of {elements:?}");
                ours.sort_unstable();
                assert_eq!(ours, sorted, "nothing is lost");
            }
        }
    }

    #[test]
    fn all_elements_keep_the_order_of_equal_ones() {
        let mut elements = vec![(1, 'a'), (0, 'b'), (1, 'c'), (0, 'd')];
        sort_first(&mut elements, 4, |a, b| a.0.cmp(&b.0));
        assert_eq!(elements, [(0, 'b'), (0, 'd'), (1, 'a'), (1, 'c')]);
    }
}
