//! Strings against a model of their registers, and strings that are none.

use super::*;
use shardis_modules_testing::Random;

const SPARSE_LEN_MAX: usize = 3000;

fn registers_of(string: &[u8]) -> Registers {
    let mut registers = [0; REGISTER_COUNT];
    open(string).expect("it is well-formed").merge_into(&mut registers);
    registers
}

fn sparse(opcodes: &[u8]) -> Vec<u8> {
    [&empty()[..HEADER_LEN_BYTES], opcodes].concat()
}

fn decoded(string: &[u8]) -> String {
    let Ok(Content::Sparse(opcodes)) = open(string) else { panic!("it is sparse") };
    describe(opcodes)
}

#[test]
fn registers_are_those_of_a_model_in_both_forms() {
    let mut random = Random::new("registers_are_those_of_a_model_in_both_forms");
    for _ in 0..20 {
        let len_max = random.below(4000) as usize;
        let mut string = empty().to_vec();
        let mut model = [0; REGISTER_COUNT];
        for _ in 0..random.below(1000) {
            let elements: Vec<_> =
                (0..1 + random.below(3)).map(|_| random.below(2000).to_le_bytes()).collect();
            let mut is_news = false;
            for element in &elements {
                let (index, value) = hash::place(element);
                is_news |= value > model[index];
                model[index] = value.max(model[index]);
            }
            let added = add(&mut string, elements.iter().map(|element| &element[..]), len_max);
            assert_eq!(added, Ok(is_news));
        }
        assert_eq!(registers_of(&string), model);
        let is_dense = open(&string).expect("it is well-formed").is_dense();
        assert!(is_dense || string.len() <= len_max.max(empty().len()), "{} of {len_max}", string.len());
        let counted = open(&string).expect("it is well-formed").cardinality();
        assert_eq!(counted, estimate::cardinality(&registers::histogram(&model)));
    }
}

#[test]
fn raising_all_at_once_gives_the_bytes_of_raising_one_by_one() {
    let mut random = Random::new("raising_all_at_once_gives_the_bytes_of_raising_one_by_one");
    for _ in 0..100 {
        let mut together = empty().to_vec();
        let (before, after) = (random.below(300), random.below(500));
        for _ in 0..before {
            add(&mut together, [&random.below(1000).to_le_bytes()[..]], SPARSE_LEN_MAX)
                .expect("it is well-formed");
        }
        let mut single = together.clone();
        let mut registers = registers_of(&together);
        for _ in 0..after {
            let (index, value) = (random.below(REGISTER_COUNT as u64) as usize, random.below(33) as u8);
            registers[index] = registers[index].max(value);
        }
        raise_all(&mut together, &registers, false, SPARSE_LEN_MAX).expect("it is well-formed");
        for (index, value) in registers.into_iter().enumerate().filter(|(_, value)| *value > 0) {
            if sparse::raise(&mut single, &mut { Place::BEGIN }, index, value, SPARSE_LEN_MAX)
                == Raised::NeedsDense
            {
                make_dense(&mut single).expect("it is well-formed");
                registers::pack(&registers, dense_mut(&mut single));
                break;
            }
        }
        assert_eq!(registers_of(&together), registers);
        assert_eq!(together[HEADER_LEN_BYTES..], single[HEADER_LEN_BYTES..]);
    }
}

#[test]
fn the_cached_cardinality_is_stale_after_a_register_was_raised() {
    let mut string = empty().to_vec();
    assert_eq!(cached_cardinality(&string), Some(0));
    add(&mut string, [&b"a"[..]], SPARSE_LEN_MAX).expect("it is well-formed");
    assert_eq!(cached_cardinality(&string), None);
    cache_cardinality(&mut string, 1);
    assert_eq!(cached_cardinality(&string), Some(1));
    assert_eq!(add(&mut string, [&b"a"[..]], SPARSE_LEN_MAX), Ok(false));
    assert_eq!(cached_cardinality(&string), Some(1));
}

#[test]
fn neighbours_of_one_value_are_joined_up_to_four() {
    let mut string = sparse(&sparse::EMPTY);
    let mut raise = |index, value| {
        assert_eq!(
            sparse::raise(&mut string, &mut { Place::BEGIN }, index, value, SPARSE_LEN_MAX),
            Raised::Yes
        );
        decoded(&string)
    };
    assert_eq!(raise(10, 3), "z:10 v:3,1 Z:16373");
    assert_eq!(raise(12, 3), "z:10 v:3,1 z:1 v:3,1 Z:16371");
    assert_eq!(raise(11, 3), "z:10 v:3,3 Z:16371");
    assert_eq!(raise(13, 3), "z:10 v:3,4 Z:16370");
    assert_eq!(raise(14, 3), "z:10 v:3,4 v:3,1 Z:16369");
    assert_eq!(raise(12, 4), "z:10 v:3,2 v:4,1 v:3,2 Z:16369");
    assert_eq!(raise(16383, 32), "z:10 v:3,2 v:4,1 v:3,2 Z:16368 v:32,1");
}

/// A run that goes past the last register made Redis before 7.4.5 write beyond its buffers (CVE-2025-32023).
#[test]
fn opcodes_that_do_not_add_up_are_refused_by_every_operation() {
    let xzero = |count: u16| [0x40 | (count - 1).to_be_bytes()[0], (count - 1).to_be_bytes()[1]];
    let malformed: [&[u8]; 9] = [
        &[],
        &[0x00],
        &xzero(16383),
        // Cut off within an XZERO.
        &[0x7f],
        &[&xzero(16383)[..], &[0x7f]].concat(),
        &[&xzero(16384)[..], &xzero(16384)].concat(),
        &[&xzero(16383)[..], &[0xff]].concat(),
        &[&xzero(16384)[..], &[0x80]].concat(),
        &[0x3f; 300],
    ];
    for opcodes in malformed {
        refused(&sparse(opcodes), Refusal::Corrupted);
    }
    // Runs of which a signed or a short sum would overflow.
    refused(&sparse(&[0x7f; 1 << 20]), Refusal::Corrupted);

    refused(b"", Refusal::Foreign);
    refused(b"HYLL", Refusal::Foreign);
    refused(&sparse(&sparse::EMPTY)[..HEADER_LEN_BYTES - 1], Refusal::Foreign);
    refused(&[b"HYLM", &empty()[4..]].concat(), Refusal::Foreign);
    refused(&[b"HYLL\x02", &empty()[5..]].concat(), Refusal::Foreign);
    refused(&[&b"HYLL\0"[..], &[0; DENSE_STRING_LEN_BYTES - 5 - 1]].concat(), Refusal::Foreign);
    refused(&[&b"HYLL\0"[..], &[0; DENSE_STRING_LEN_BYTES - 5 + 1]].concat(), Refusal::Foreign);
}

fn refused(string: &[u8], refusal: Refusal) {
    let mut changed = string.to_vec();
    assert_eq!(open(string).err(), Some(refusal));
    assert_eq!(add(&mut changed, [&b"a"[..]], SPARSE_LEN_MAX), Err(refusal));
    assert_eq!(make_dense(&mut changed), Err(refusal));
    assert_eq!(raise_all(&mut changed, &[1; REGISTER_COUNT], false, SPARSE_LEN_MAX), Err(refusal));
    assert_eq!(changed, string, "what is refused stays as it is");
}

#[test]
fn strings_with_random_changes_are_refused_or_stay_well_formed() {
    let mut random = Random::new("strings_with_random_changes_are_refused_or_stay_well_formed");
    let mut refused = 0;
    for _ in 0..3000 {
        let mut string = empty().to_vec();
        for _ in 0..random.below(50) {
            add(&mut string, [&random.below(1000).to_le_bytes()[..]], SPARSE_LEN_MAX)
                .expect("it is well-formed");
        }
        for _ in 0..random.below(3) {
            let at = random.below(string.len() as u64) as usize;
            string[at] = random.below(256) as u8;
        }
        let mut registers = [0; REGISTER_COUNT];
        let Ok(content) = open(&string) else {
            refused += 1;
            continue;
        };
        content.cardinality();
        content.merge_into(&mut registers);
        registers[random.below(REGISTER_COUNT as u64) as usize] = 40;
        add(&mut string, [&random.below(1000).to_le_bytes()[..]], SPARSE_LEN_MAX).expect("it is well-formed");
        raise_all(&mut string, &registers, false, SPARSE_LEN_MAX).expect("it is well-formed");
        registers_of(&string);
    }
    assert!(refused > 300, "{refused}");
}
