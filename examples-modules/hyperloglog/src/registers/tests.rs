//! The kernels against single registers, and against each other.

use super::*;
use shardis_modules_testing::Random;

fn random_registers(random: &mut Random) -> Registers {
    let (least, spread) = (random.below(40) as u8, random.below(23) as u8 + 1);
    std::array::from_fn(|_| least + random.below(u64::from(spread)) as u8)
}

fn unpacked_by_get(dense: &Dense) -> Registers {
    std::array::from_fn(|index| get(dense, index))
}

#[test]
fn packed_registers_are_read_one_by_one_as_they_were() {
    let mut random = Random::new("packed_registers_are_read_one_by_one_as_they_were");
    for _ in 0..50 {
        let registers = random_registers(&mut random);
        let mut dense = [0xff; DENSE_LEN_BYTES];
        pack(&registers, &mut dense);
        assert_eq!(unpacked_by_get(&dense), registers);

        let mut by_set = [0xff; DENSE_LEN_BYTES];
        registers.iter().enumerate().for_each(|(index, value)| set(&mut by_set, index, *value));
        assert_eq!(by_set, dense);
    }
}

#[test]
fn merging_takes_the_greater_of_each() {
    let mut random = Random::new("merging_takes_the_greater_of_each");
    for _ in 0..50 {
        let mut registers = random_registers(&mut random);
        let others: Vec<Registers> = (0..random.below(4)).map(|_| random_registers(&mut random)).collect();
        let packed = |registers: &Registers| {
            let mut dense = [0; DENSE_LEN_BYTES];
            pack(registers, &mut dense);
            dense
        };
        let dense: Vec<Dense> = others.iter().map(packed).collect();
        let greatest = |at: usize| others.iter().map(|other| other[at]).fold(registers[at], u8::max);
        let expected: Registers = std::array::from_fn(greatest);
        let mut merged = packed(&registers);
        merge_packed(&mut merged, &dense.iter().collect::<Vec<_>>());
        assert_eq!(unpacked_by_get(&merged), expected);
        merge(&mut registers, &dense.iter().collect::<Vec<_>>());
        assert_eq!(registers, expected);
    }
}

#[test]
fn dense_strings_are_merged_alike_by_all_kernels_that_the_processor_has() {
    let mut random = Random::new("dense_strings_are_merged_alike_by_all_kernels_that_the_processor_has");
    let mut any = || -> Dense { std::array::from_fn(|_| random.below(256) as u8) };
    for count in (0..4).cycle().take(40) {
        let (old, others): (Dense, Vec<Dense>) = (any(), (0..count).map(|_| any()).collect());
        let others: Vec<&Dense> = others.iter().collect();
        let mut expected = old;
        portable::merge_packed(&mut expected, &others);
        for kernel in merge_kernels() {
            let mut merged = old;
            kernel(&mut merged, &others);
            assert_eq!(merged, expected);
        }
    }
}

#[test]
fn all_registers_are_counted_once() {
    let mut random = Random::new("all_registers_are_counted_once");
    for _ in 0..50 {
        let registers = random_registers(&mut random);
        let mut expected: Histogram = [0; _];
        registers.iter().for_each(|value| expected[usize::from(*value)] += 1);
        assert_eq!(histogram(&registers), expected);
    }
}

#[test]
fn the_kernels_with_avx2_do_what_the_portable_ones_do() {
    let mut random = Random::new("the_kernels_with_avx2_do_what_the_portable_ones_do");
    for _ in 0..50 {
        let registers = random_registers(&mut random);
        let others: [Dense; 3] = std::array::from_fn(|_| std::array::from_fn(|_| random.below(256) as u8));
        let others = others.each_ref();

        let (mut packed, mut expected) = ([0xff; DENSE_LEN_BYTES], [0; DENSE_LEN_BYTES]);
        pack(&registers, &mut packed);
        portable::pack(&registers, &mut expected);
        assert_eq!(packed, expected);

        let (mut merged, mut expected) = (registers, registers);
        merge(&mut merged, &others);
        portable::merge(&mut expected, &others);
        assert_eq!(merged, expected);
        assert_eq!(histogram(&merged), portable::histogram(&merged));
    }
}
