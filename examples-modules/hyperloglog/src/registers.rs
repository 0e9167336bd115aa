//! The registers, one byte each while several strings are merged or counted, and the kernels between this form and the
//! dense form of strings: 6 bits a register, register 0 in the low bits of byte 0, so that 4 registers take 3 bytes.
//!
//! Each kernel stands twice: in portable Rust, and with AVX2 for processors that have it; that which merges dense strings
//! stands once more, with AVX-512. Which one runs is asked of the processor at run time.

/// Their number; Redis' precision of 14 bits, for a standard error of 0.81%.
pub const REGISTER_COUNT: usize = 1 << 14;

/// The bits of a dense register.
pub const REGISTER_BITS: usize = 6;

/// The greatest value of a dense register.
pub const REGISTER_MAX: u8 = (1 << REGISTER_BITS) - 1;

/// Bytes of all registers in the dense form.
pub const DENSE_LEN_BYTES: usize = REGISTER_COUNT * REGISTER_BITS / 8;

/// One byte a register.
pub type Registers = [u8; REGISTER_COUNT];

/// The registers of a string in the dense form.
pub type Dense = [u8; DENSE_LEN_BYTES];

/// How many registers have each value.
pub type Histogram = [u32; REGISTER_MAX as usize + 1];

/// Raises each register to its greatest value in any of `dense`, where that is greater.
pub fn merge(registers: &mut Registers, dense: &[&Dense]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::merge(registers, dense) };
    }
    portable::merge(registers, dense);
}

/// Raises each register of `merged` to its greatest value in any of `dense`, where that is greater: [`merge`] without the
/// form of one byte a register.
pub fn merge_packed(merged: &mut Dense, dense: &[&Dense]) {
    #[cfg(target_arch = "x86_64")]
    if avx512::is_there() {
        // SAFETY: the processor has what it needs.
        return unsafe { avx512::merge_packed(merged, dense) };
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::merge_packed(merged, dense) };
    }
    portable::merge_packed(merged, dense);
}

/// The ways of [`merge_packed`] that the processor has.
#[cfg(test)]
fn merge_kernels() -> Vec<fn(&mut Dense, &[&Dense])> {
    let mut kernels: Vec<fn(&mut Dense, &[&Dense])> = vec![merge_packed];
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        kernels.push(|merged, dense| unsafe { avx2::merge_packed(merged, dense) });
    }
    kernels
}

/// Writes all registers in the dense form. Values are at most [`REGISTER_MAX`].
pub fn pack(registers: &Registers, dense: &mut Dense) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::pack(registers, dense) };
    }
    portable::pack(registers, dense);
}

/// Counts the registers of each value. Values are at most [`REGISTER_MAX`].
pub fn histogram(registers: &Registers) -> Histogram {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::histogram(registers) };
    }
    portable::histogram(registers)
}

/// The value of one register of the dense form.
pub fn get(dense: &Dense, index: usize) -> u8 {
    let (at, shift) = position(index);
    // The last register ends with the last byte.
    let next = dense.get(at + 1).copied().unwrap_or(0);
    (u16::from_le_bytes([dense[at], next]) >> shift) as u8 & REGISTER_MAX
}

/// Sets one register of the dense form.
pub fn set(dense: &mut Dense, index: usize, value: u8) {
    let (at, shift) = position(index);
    let (mask, value) = (u16::from(REGISTER_MAX) << shift, u16::from(value & REGISTER_MAX) << shift);
    let [low_mask, high_mask] = mask.to_le_bytes();
    let [low, high] = value.to_le_bytes();
    dense[at] = (dense[at] & !low_mask) | low;
    if high_mask != 0 {
        dense[at + 1] = (dense[at + 1] & !high_mask) | high;
    }
}

/// The byte in which a register begins, and at which of its bits.
fn position(index: usize) -> (usize, usize) {
    let bit = index * REGISTER_BITS;
    (bit / 8, bit % 8)
}

/// Four registers in three bytes at a time.
mod portable {
    use super::{Dense, Histogram, REGISTER_COUNT, REGISTER_MAX, Registers};

    pub fn merge_packed(merged: &mut Dense, dense: &[&Dense]) {
        let mut registers = [0; REGISTER_COUNT];
        merge(&mut registers, &[&*merged]);
        merge(&mut registers, dense);
        pack(&registers, merged);
    }

    pub fn merge(registers: &mut Registers, dense: &[&Dense]) {
        for dense in dense {
            let chunks = dense.as_chunks::<3>().0;
            for (registers, bytes) in registers.as_chunks_mut::<4>().0.iter_mut().zip(chunks) {
                let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
                for (at, register) in registers.iter_mut().enumerate() {
                    *register = (*register).max((word >> (6 * at)) as u8 & REGISTER_MAX);
                }
            }
        }
    }

    pub fn pack(registers: &Registers, dense: &mut Dense) {
        for (registers, bytes) in registers.as_chunks::<4>().0.iter().zip(dense.as_chunks_mut::<3>().0) {
            let [a, b, c, d] = registers.map(u32::from);
            let word = a | (b << 6) | (c << 12) | (d << 18);
            bytes.copy_from_slice(&word.to_le_bytes()[..3]);
        }
    }

    pub fn histogram(registers: &Registers) -> Histogram {
        // Equal neighbours would wait for each other's count in a single table.
        let mut tables = [[0u32; REGISTER_MAX as usize + 1]; 4];
        for registers in registers.as_chunks::<4>().0 {
            for (table, register) in tables.iter_mut().zip(registers) {
                table[usize::from(register & REGISTER_MAX)] += 1;
            }
        }
        let [mut sum, rest @ ..] = tables;
        for table in rest {
            sum.iter_mut().zip(table).for_each(|(sum, count)| *sum += count);
        }
        sum
    }
}

/// 32 registers in 24 bytes at a time.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Dense, Histogram, Registers};
    use std::arch::x86_64::{
        __m256i, _mm_loadu_si128, _mm_storel_epi64, _mm_storeu_si128, _mm256_add_epi64, _mm256_and_si256,
        _mm256_castsi256_si128, _mm256_cmpeq_epi8, _mm256_extracti128_si256, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_epu8, _mm256_min_epu8, _mm256_or_si256,
        _mm256_permutevar8x32_epi32, _mm256_sad_epu8, _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi16,
        _mm256_set1_epi32, _mm256_setr_epi8, _mm256_setr_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8,
        _mm256_slli_epi32, _mm256_storeu_si256, _mm256_sub_epi8,
    };

    const PACKED: usize = 24;
    const UNPACKED: usize = 32;

    /// How many values are counted in one pass over the registers.
    const VALUES_A_PASS: usize = 4;

    /// A lane of 8 bits counts to 255.
    const VECTORS_A_SUM: usize = 128;

    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8; UNPACKED]) -> __m256i {
        // SAFETY: the array has the 32 bytes that are read; no alignment is asked for.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    fn store(bytes: &mut [u8; UNPACKED], vector: __m256i) {
        // SAFETY: the array has the 32 bytes that are written; no alignment is asked for.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
    }

    /// One byte a register.
    #[target_feature(enable = "avx2")]
    fn unpack(bytes: &[u8; PACKED]) -> __m256i {
        // SAFETY: the array has 24 bytes; 16 are read from its begin and 16 from byte 8.
        let (low, high) = unsafe {
            let begin = bytes.as_ptr();
            (_mm_loadu_si128(begin.cast()), _mm_loadu_si128(begin.add(8).cast()))
        };
        // Three bytes to each 32 bits; the upper lane's begin at its byte 4.
        let spread = _mm256_shuffle_epi8(
            _mm256_set_m128i(high, low),
            _mm256_setr_epi8(
                0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, //
                4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15, -1,
            ),
        );
        // Register n of the four moves from bit 6n to bit 8n.
        let first = _mm256_and_si256(spread, _mm256_set1_epi32(0x3f));
        let second = _mm256_and_si256(_mm256_slli_epi32::<2>(spread), _mm256_set1_epi32(0x3f00));
        let third = _mm256_and_si256(_mm256_slli_epi32::<4>(spread), _mm256_set1_epi32(0x3f_0000));
        let fourth = _mm256_and_si256(_mm256_slli_epi32::<6>(spread), _mm256_set1_epi32(0x3f00_0000));
        _mm256_or_si256(_mm256_or_si256(first, second), _mm256_or_si256(third, fourth))
    }

    /// Goes over the registers once, however many there are to merge: they take more memory than what is merged.
    #[target_feature(enable = "avx2")]
    pub fn merge(registers: &mut Registers, dense: &[&Dense]) {
        for (at, registers) in registers.as_chunks_mut::<UNPACKED>().0.iter_mut().enumerate() {
            let greatest = dense.iter().fold(load(registers), |greatest, dense| {
                _mm256_max_epu8(greatest, unpack(&dense.as_chunks::<PACKED>().0[at]))
            });
            store(registers, greatest);
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn merge_packed(merged: &mut Dense, dense: &[&Dense]) {
        for (at, bytes) in merged.as_chunks_mut::<PACKED>().0.iter_mut().enumerate() {
            let greatest = dense.iter().fold(unpack(bytes), |greatest, dense| {
                _mm256_max_epu8(greatest, unpack(&dense.as_chunks::<PACKED>().0[at]))
            });
            pack_vector(greatest, bytes);
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn pack(registers: &Registers, dense: &mut Dense) {
        let registers = registers.as_chunks::<UNPACKED>().0;
        for (registers, bytes) in registers.iter().zip(dense.as_chunks_mut::<PACKED>().0) {
            pack_vector(load(registers), bytes);
        }
    }

    #[target_feature(enable = "avx2")]
    fn pack_vector(vector: __m256i, bytes: &mut [u8; PACKED]) {
        // Two registers become 12 bits, and two of those 24, by sums of products: register n of four by 1 << 6n.
        let pairs = _mm256_maddubs_epi16(vector, _mm256_set1_epi16(1 | 1 << (8 + 6)));
        let joined = _mm256_madd_epi16(pairs, _mm256_set1_epi32(1 | 1 << (16 + 12)));
        // The three low bytes of each 32 bits, side by side in each lane, and zeros behind them.
        let close = _mm256_shuffle_epi8(
            joined,
            _mm256_setr_epi8(
                0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, //
                0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,
            ),
        );
        let close = _mm256_permutevar8x32_epi32(close, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7));
        let (low, high) = (_mm256_castsi256_si128(close), _mm256_extracti128_si256::<1>(close));
        // SAFETY: 16 bytes are written from the begin of the 24, and 8 from byte 16.
        unsafe {
            let begin = bytes.as_mut_ptr();
            _mm_storeu_si128(begin.cast(), low);
            _mm_storel_epi64(begin.add(16).cast(), high);
        }
    }

    /// Compares instead of counting in a table: the values of a HyperLogLog lie close together, so that few passes over
    /// the registers are enough.
    #[target_feature(enable = "avx2")]
    pub fn histogram(registers: &Registers) -> Histogram {
        let vectors = registers.as_chunks::<UNPACKED>().0;
        let mut least = _mm256_set1_epi8(-1);
        let mut greatest = _mm256_setzero_si256();
        for vector in vectors {
            let vector = load(vector);
            least = _mm256_min_epu8(least, vector);
            greatest = _mm256_max_epu8(greatest, vector);
        }
        let mut lanes = [0; UNPACKED];
        let mut histogram: Histogram = [0; _];
        store(&mut lanes, least);
        let least = usize::from(lanes.into_iter().min().unwrap_or(0));
        store(&mut lanes, greatest);
        let greatest = usize::from(lanes.into_iter().max().unwrap_or(0)).min(histogram.len() - 1);

        for first in (least..=greatest).step_by(VALUES_A_PASS) {
            let wanted: [__m256i; VALUES_A_PASS] =
                std::array::from_fn(|at| _mm256_set1_epi8((first + at) as i8));
            let mut sums = [_mm256_setzero_si256(); VALUES_A_PASS];
            for vectors in vectors.chunks(VECTORS_A_SUM) {
                let mut counts = [_mm256_setzero_si256(); VALUES_A_PASS];
                for vector in vectors {
                    let vector = load(vector);
                    for at in 0..VALUES_A_PASS {
                        // What is equal is -1 in its lane.
                        counts[at] = _mm256_sub_epi8(counts[at], _mm256_cmpeq_epi8(vector, wanted[at]));
                    }
                }
                for at in 0..VALUES_A_PASS {
                    let sum = _mm256_sad_epu8(counts[at], _mm256_setzero_si256());
                    sums[at] = _mm256_add_epi64(sums[at], sum);
                }
            }
            for (count, sum) in histogram[first..].iter_mut().zip(sums) {
                store(&mut lanes, sum);
                *count = lanes.as_chunks::<8>().0.iter().map(|lane| u64::from_le_bytes(*lane) as u32).sum();
            }
        }
        histogram
    }
}

/// 64 registers in 48 bytes at a time, for processors that move single bytes, and fields of bits, across a vector.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::Dense;
    use std::arch::x86_64::{
        __m512i, _mm_storeu_si128, _mm256_storeu_si256, _mm512_and_si512, _mm512_castsi512_si256,
        _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_maddubs_epi16,
        _mm512_maskz_loadu_epi8, _mm512_max_epu8, _mm512_multishift_epi64_epi8, _mm512_permutexvar_epi8,
        _mm512_set1_epi8, _mm512_set1_epi16, _mm512_set1_epi32,
    };

    const PACKED: usize = 48;
    const UNPACKED: usize = 64;

    /// The six bytes of eight registers to each 64 bits.
    const SPREAD: [u8; UNPACKED] = places(6, 8);
    /// The three low bytes of each 32 bits side by side.
    const CLOSE: [u8; UNPACKED] = places(4, 3);
    /// Where in 64 bits a register begins.
    const SHIFTS: [u8; UNPACKED] = {
        let mut shifts = [0; UNPACKED];
        let mut at = 0;
        while at < UNPACKED {
            shifts[at] = (at % 8 * 6) as u8;
            at += 1;
        }
        shifts
    };

    /// From where each byte of groups of `to` bytes comes, which are in groups of `from` bytes.
    const fn places(from: usize, to: usize) -> [u8; UNPACKED] {
        let mut places = [0; UNPACKED];
        let mut at = 0;
        while at < UNPACKED {
            places[at] = ((at / to * from + at % to) % UNPACKED) as u8;
            at += 1;
        }
        places
    }

    pub fn is_there() -> bool {
        std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx512vbmi")
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512vbmi")]
    fn load(bytes: &[u8; UNPACKED]) -> __m512i {
        // SAFETY: the array has the 64 bytes that are read; no alignment is asked for.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// One byte a register.
    #[inline]
    #[target_feature(enable = "avx512bw,avx512vbmi")]
    fn unpack(bytes: &[u8; PACKED]) -> __m512i {
        // SAFETY: the mask says that 48 bytes are read, which the array has.
        let packed = unsafe { _mm512_maskz_loadu_epi8((1 << PACKED) - 1, bytes.as_ptr().cast()) };
        let spread = _mm512_permutexvar_epi8(load(&SPREAD), packed);
        let fields = _mm512_multishift_epi64_epi8(load(&SHIFTS), spread);
        _mm512_and_si512(fields, _mm512_set1_epi8(0x3f))
    }

    #[target_feature(enable = "avx512bw,avx512vbmi")]
    pub fn merge_packed(merged: &mut Dense, dense: &[&Dense]) {
        for (at, bytes) in merged.as_chunks_mut::<PACKED>().0.iter_mut().enumerate() {
            let greatest = dense.iter().fold(unpack(bytes), |greatest, dense| {
                _mm512_max_epu8(greatest, unpack(&dense.as_chunks::<PACKED>().0[at]))
            });
            // As in AVX2's way.
            let pairs = _mm512_maddubs_epi16(greatest, _mm512_set1_epi16(1 | 1 << (8 + 6)));
            let joined = _mm512_madd_epi16(pairs, _mm512_set1_epi32(1 | 1 << (16 + 12)));
            let close = _mm512_permutexvar_epi8(load(&CLOSE), joined);
            // SAFETY: 32 bytes are written from the begin of the 48, and 16 from byte 32.
            unsafe {
                let begin = bytes.as_mut_ptr();
                _mm256_storeu_si256(begin.cast(), _mm512_castsi512_si256(close));
                _mm_storeu_si128(begin.add(32).cast(), _mm512_extracti32x4_epi32::<2>(close));
            }
        }
    }
}

#[cfg(test)]
mod tests;
