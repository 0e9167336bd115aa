//! Listpacks from outside: what passes the check is read from both ends and changed without a panic, as a vector of the same
//! elements is, and stays what the check passes.
//!
//! Input: bytes that may be a listpack, if not it begins empty, and changes: what, where, and an element.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shardis_pure::types::listpack::{EMPTY, Listpack, ListpackMut, validate};

/// More changes than this make an execution slow and find nothing else.
const CHANGES_MAX: usize = 64;

fn elements(bytes: &[u8]) -> Vec<Vec<u8>> {
    Listpack::new(bytes).iter().map(|(_, item)| item.to_vec()).collect()
}

/// The position of element `index`, or the end.
fn position(bytes: &[u8], index: usize) -> usize {
    let listpack = Listpack::new(bytes);
    listpack.seek(index as isize).unwrap_or(listpack.end())
}

fuzz_target!(|input: (Vec<u8>, Vec<(u8, u16, Vec<u8>)>)| {
    let (mut bytes, changes) = input;
    // Any bytes may be asked for, and the short check is one of the deep one's.
    if validate(&bytes, true).is_ok() {
        assert!(validate(&bytes, false).is_ok());
    } else {
        let _ = validate(&bytes, false);
        bytes = EMPTY.to_vec();
    }
    let mut model = elements(&bytes);
    let mut reversed: Vec<Vec<u8>> = Listpack::new(&bytes).iter().rev().map(|(_, item)| item.to_vec()).collect();
    reversed.reverse();
    assert_eq!(reversed, model);

    for (what, place, element) in changes.into_iter().take(CHANGES_MAX) {
        let at = usize::from(place) % (model.len() + 1);
        let pos = position(&bytes, at);
        let mut listpack = ListpackMut::new(&mut bytes);
        match what % 5 {
            0 => {
                listpack.insert_before(pos, &element[..]);
                model.insert(at, element);
            }
            1 if at < model.len() => {
                listpack.replace(pos, &element[..]);
                model[at] = element;
            }
            2 => {
                let count = element.len();
                listpack.remove(pos, count);
                model.drain(at..(at + count).min(model.len()));
            }
            3 => {
                let all = [&element[..], &element[element.len() / 2..]];
                listpack.append_many(all.into_iter());
                model.extend(all.map(<[u8]>::to_vec));
            }
            _ => {
                let found = Listpack::new(&bytes).find(&element, 6, 0);
                let is_found = found.is_some_and(|pos| Listpack::new(&bytes).at(pos).to_vec() == element);
                assert!(found.is_none() || is_found);
            }
        }
        assert_eq!(validate(&bytes, true), Ok(()));
        assert_eq!(elements(&bytes), model);
    }
    assert_eq!(Listpack::new(&bytes).len(), model.len());
});
