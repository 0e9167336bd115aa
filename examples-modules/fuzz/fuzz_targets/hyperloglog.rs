//! Strings of any bytes, taken for HyperLogLogs: every operation refuses them and leaves them as they are, or none does, and
//! then the string stays one, with the registers that it should have.
//!
//! Input: the greatest length in the sparse form, what is added, and the string from its fifth byte on, so that the
//! first four need not be found.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shardis_hyperloglog::string::{Content, Refusal, add, make_dense, open, raise_all};

fn registers(string: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut registers = Box::new([0; 1 << 14]);
    open(string).map(|content: Content| {
        content.merge_into(&mut registers);
        content.cardinality();
        registers.to_vec()
    })
}

fuzz_target!(|input: (u16, Vec<u64>, Vec<u8>)| {
    let (sparse_len_max, elements, rest) = input;
    let string = [b"HYLL", &rest[..]].concat();
    let before = registers(&string);

    let mut added = string.clone();
    let elements: Vec<[u8; 8]> = elements.iter().map(|element| element.to_le_bytes()).collect();
    let raised = add(&mut added, elements.iter().map(|element| &element[..]), usize::from(sparse_len_max));
    let mut dense = string.clone();
    let turned = make_dense(&mut dense);
    let mut full = string.clone();
    let filled = raise_all(&mut full, &[40; 1 << 14], false, usize::from(sparse_len_max));

    let Ok(before) = before else {
        let refusal = before.err();
        assert_eq!((raised.err(), turned.err(), filled.err()), (refusal, refusal, refusal));
        assert!(added == string && dense == string && full == string);
        return;
    };
    assert_eq!(registers(&dense), Ok(before.clone()));
    assert_eq!(registers(&full), Ok(vec![40; 1 << 14]));
    let after = registers(&added).expect("it stays well-formed");
    assert!(before.iter().zip(&after).all(|(before, after)| before <= after));
    assert_eq!(raised, Ok(before != after));
});
