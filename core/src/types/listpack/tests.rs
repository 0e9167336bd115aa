//! Listpacks against a vector of strings, and damaged ones.

use super::*;
use crate::testing::{Rng, with_seed};

/// Strings around the bounds of all encodings.
fn element(rng: &mut Rng) -> Vec<u8> {
    let around = |rng: &mut Rng, bounds: &[i64]| {
        let bound = *rng.pick(bounds);
        bound.wrapping_add(rng.below(5) as i64 - 2)
    };
    match rng.below(12) {
        0..5 => {
            let bounds = [0, 128, -4096, 4096, -32768, 32768, -8388608, 8388608, i64::from(i32::MIN)];
            around(rng, &bounds).to_string().into_bytes()
        }
        5 => around(rng, &[i64::from(i32::MAX), i64::MAX, i64::MIN]).to_string().into_bytes(),
        6 => rng.pick(&[&b""[..], b"-", b"-0", b"01", b"+1", b" 1", b"9223372036854775808"]).to_vec(),
        7 => {
            let len = around(rng, &[64, 127, 4096, 128]) as usize;
            rng.bytes(len)
        }
        8 if rng.one_in(20) => {
            let len = around(rng, &[16_383, 65_536]) as usize;
            rng.bytes(len)
        }
        _ => {
            let len = rng.below(30);
            rng.bytes(len)
        }
    }
}

fn contents(listpack: Listpack<'_>) -> Vec<Vec<u8>> {
    listpack.iter().map(|(_, item)| item.to_vec()).collect()
}

fn check(blob: &Vec<u8>, model: &[Vec<u8>]) {
    assert_eq!(validate(blob, true), Ok(()));
    let listpack = Listpack::new(blob);
    assert_eq!(contents(listpack), model);
    assert_eq!((listpack.len(), listpack.is_empty()), (model.len(), model.is_empty()));
    let mut backwards: Vec<_> = listpack.iter().rev().map(|(_, item)| item.to_vec()).collect();
    backwards.reverse();
    assert_eq!(backwards, model);
    let sizes: usize = model.iter().map(|element| entry_len(element)).sum();
    assert_eq!(listpack.bytes_len(), EMPTY.len() + sizes);
    assert_eq!(listpack.last().map(|pos| listpack.at(pos).to_vec()).as_ref(), model.last());
}

#[test]
fn a_listpack_does_what_a_vector_does() {
    with_seed(|rng| {
        for _ in 0..if cfg!(miri) { 2 } else { 60 } {
            let (mut blob, mut model) = (EMPTY.to_vec(), Vec::<Vec<u8>>::new());
            for _ in 0..if cfg!(miri) { 20 } else { 200 } {
                change(rng, &mut blob, &mut model);
                check(&blob, &model);
                look(rng, Listpack::new(&blob), &model);
            }
        }
    });
}

fn change(rng: &mut Rng, blob: &mut Vec<u8>, model: &mut Vec<Vec<u8>>) {
    let mut listpack = ListpackMut::new(blob);
    let new = element(rng);
    let index = rng.below(model.len() + 1);
    let pos = listpack.as_ref().seek(index as isize);
    match (rng.below(10), pos) {
        (0 | 1, _) => {
            listpack.push_back(&new[..]);
            model.push(new);
        }
        (2, _) => {
            listpack.push_front(&new[..]);
            model.insert(0, new);
        }
        (3, Some(pos)) => {
            assert_eq!(listpack.insert_before(pos, &new[..]), pos);
            model.insert(index, new);
        }
        (4, Some(pos)) => {
            let at = listpack.insert_after(pos, &new[..]);
            assert_eq!(listpack.as_ref().at(at), Item::of(&new));
            model.insert(index + 1, new);
        }
        (5, Some(pos)) => {
            listpack.replace(pos, &new[..]);
            model[index] = new;
        }
        (6, Some(pos)) => {
            let count = rng.below(4);
            let follows = listpack.remove(pos, count);
            model.drain(index..(index + count).min(model.len()));
            assert_eq!(follows, (index < model.len()).then_some(pos));
        }
        (7, Some(_)) => {
            let count = rng.below(4);
            let from_end = index as isize - model.len() as isize;
            listpack.remove_range(*rng.pick(&[index as isize, from_end]), count);
            model.drain(index..(index + count).min(model.len()));
        }
        (8, _) => {
            let many: Vec<_> = (0..rng.below(4)).map(|_| element(rng)).collect();
            listpack.append_many(many.iter().map(|element| &element[..]));
            model.extend(many);
        }
        _ => {
            let number = rng.next() as i64 >> rng.below(64);
            listpack.push_back(number);
            model.push(number.to_string().into_bytes());
        }
    }
}

fn look(rng: &mut Rng, listpack: Listpack<'_>, model: &[Vec<u8>]) {
    let len = model.len() as isize;
    let index = rng.below(2 * model.len() + 5) as isize - len - 2;
    let from_start = if index < 0 { index + len } else { index };
    let expected = usize::try_from(from_start).ok().and_then(|index| model.get(index));
    assert_eq!(listpack.get(index).map(Item::to_vec).as_ref(), expected);

    let needle = if model.is_empty() || rng.one_in(3) { element(rng) } else { rng.pick(model).clone() };
    let (from, skip) = (rng.below(model.len() + 1), rng.below(3));
    let found = listpack.seek(from as isize).and_then(|pos| listpack.find(&needle, pos, skip));
    let index = (from..model.len()).step_by(skip + 1).find(|&index| model[index] == needle);
    assert_eq!(found, index.and_then(|index| listpack.seek(index as isize)));
    if let Some(pos) = found {
        assert_eq!(listpack.at(pos), Item::of(&needle));
    }
}

/// What redis-server 7.0.15 writes for `RPUSH l a 1 -1 5000 -70000 hello 12345678901`, without the quicklist around it.
#[test]
fn the_layout_is_that_of_redis() {
    let mut blob = EMPTY.to_vec();
    ListpackMut::new(&mut blob)
        .append_many([&b"a"[..], b"1", b"-1", b"5000", b"-70000", b"hello", b"12345678901"].into_iter());
    let expected = b"\x29\0\0\0\x07\0\x81a\x02\x01\x01\xdf\xff\x02\xf1\x88\x13\x03\xf2\x90\xee\xfe\x04\
        \x85hello\x06\xf4\x35\x1c\xdc\xdf\x02\0\0\0\x09\xff";
    assert_eq!(blob, expected);
}

#[test]
#[cfg_attr(miri, ignore = "takes long")]
fn more_elements_than_the_header_can_count_are_counted_by_walking() {
    let count = 70_000;
    let mut blob = EMPTY.to_vec();
    ListpackMut::new(&mut blob).append_many((0..count).map(i64::from));
    assert_eq!(count_in_header(&blob), COUNT_UNKNOWN);
    assert_eq!(validate(&blob, true), Ok(()));
    let listpack = Listpack::new(&blob);
    assert_eq!(listpack.len(), count as usize);
    assert_eq!(listpack.get(-1), Some(Item::Int(i64::from(count - 1))));
    assert_eq!(listpack.get(69_998), Some(Item::Int(69_998)));
    assert_eq!(listpack.get(70_000), None);
    let mut listpack = ListpackMut::new(&mut blob);
    listpack.remove_range(1, 69_998);
    assert_eq!(listpack.as_ref().len(), 2);
}

/// CVE-2021-32627 and CVE-2021-32628 were lengths that overflowed; here they lie beyond the end, and are refused.
#[test]
fn lengths_beyond_the_end_are_damage() {
    let sized = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    for (bytes, what) in [
        (&[0, 0, 0, 0, 1, 0, 0xF0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0xFF][..], "an element beyond the end"),
        (&[0, 0, 0, 0, 1, 0, 0xF0, 0xFB, 0xFF, 0xFF, 0xFF, 0xFF][..], "an element beyond the end"),
        (&[0, 0, 0, 0, 1, 0, 0xF0, 0xFF][..], "an element beyond the end"),
        (&[0, 0, 0, 0, 1, 0, 0xEF, 0xFF, 1, 0xFF], "an element beyond the end"),
        (&[0, 0, 0, 0, 1, 0, 0x82, b'a', 2, 0xFF], "an element beyond the end"),
        (&[0, 0, 0, 0, 1, 0, 0xF5, 1, 0xFF], "an unknown encoding"),
        (&[0, 0, 0, 0, 1, 0, 0xFF, 1, 0xFF], "an unknown encoding"),
        (&[0, 0, 0, 0, 1, 0, 0x81, b'a', 3, 0xFF], "an element that is longer or shorter read from its end"),
        (&[0, 0, 0, 0, 2, 0, 0x81, b'a', 2, 0xFF], "another number of elements"),
        (&[0, 0, 0, 0, 0, 0, 0], "no end"),
        (&[0, 0, 0, 0, 0, 0xFF], "too few bytes"),
    ] {
        assert_eq!(validate(&sized(bytes), true).unwrap_err().what, what, "{bytes:?}");
    }
    let unknown_count = sized(&[0, 0, 0, 0, 0xFF, 0xFF, 0x81, b'a', 2, 0xFF]);
    assert_eq!(validate(&unknown_count, true), Ok(()));
    let mut longer = EMPTY.to_vec();
    longer.push(END);
    assert_eq!(validate(&longer, false).unwrap_err().what, "another number of bytes");
}

/// What passes the check is read from both ends without a panic, and in the same way.
#[test]
fn damage_is_found_or_does_no_harm() {
    with_seed(|rng| {
        for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let mut blob = EMPTY.to_vec();
            for _ in 0..rng.below(5) {
                ListpackMut::new(&mut blob).push_back(&element(rng)[..]);
            }
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(blob.len());
                let any = rng.next() as u8;
                blob[at] = *rng.pick(&[0, 1, 0x7F, 0x80, 0xF0, 0xF4, 0xFF, any]);
            }
            if validate(&blob, true).is_ok() {
                let listpack = Listpack::new(&blob);
                let forwards: Vec<_> = listpack.iter().collect();
                let mut backwards: Vec<_> = listpack.iter().rev().collect();
                backwards.reverse();
                assert_eq!(forwards, backwards);
                assert_eq!(listpack.len(), forwards.len());
            }
        }
    });
}

#[test]
fn extending_by_elements_is_appending_them() {
    let long = vec![b'x'; 5000];
    let strings: [&[u8]; 7] = [b"", b"a", b"127", b"128", b"-5", &long[..63], &long];
    let items: Vec<Item<'_>> = strings.iter().map(|&string| Item::of(string)).collect();
    let (mut extended, mut appended) = (EMPTY.to_vec(), EMPTY.to_vec());
    for _ in 0..2 {
        ListpackMut::new(&mut extended).extend(&items);
        ListpackMut::new(&mut appended).append_many(items.iter().copied());
        assert_eq!(extended, appended);
    }
    assert_eq!(validate(&extended, true), Ok(()));
}
