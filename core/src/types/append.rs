//! Appending several pieces to a buffer with one look at its capacity.

/// Appends the first `head_len` bytes of `head`, `body`, and a line end: a bulk string with its header. As three calls of
/// `extend_from_slice` it would cost a twentieth of a GET.
#[inline]
pub fn append_bulk(out: &mut Vec<u8>, head: [u8; 8], head_len: usize, body: &[u8]) {
    const LINE_END: [u8; 2] = *b"\r\n";
    assert!(head_len <= head.len());
    let start = out.len();
    out.reserve(head.len() + body.len() + LINE_END.len());
    // SAFETY: there is room for all of `head`, for `body` and for the line end behind each other, and so for the shorter
    // head. `body` lies outside of the room, which belongs to `out` alone. The bytes up to the new length are written.
    unsafe {
        let to = out.as_mut_ptr().add(start);
        to.cast::<[u8; 8]>().write_unaligned(head);
        to.add(head_len).copy_from_nonoverlapping(body.as_ptr(), body.len());
        to.add(head_len + body.len()).cast::<[u8; 2]>().write_unaligned(LINE_END);
        out.set_len(start + head_len + body.len() + LINE_END.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_body_and_line_end_come_behind_what_is_there() {
        let mut out = b"+OK\r\n".to_vec();
        for capacity in 0..30 {
            out.truncate(5);
            out.shrink_to_fit();
            out.reserve_exact(capacity);
            append_bulk(&mut out, *b"$3\r\n....", 4, b"abc");
            append_bulk(&mut out, *b"$0\r\n....", 4, b"");
            append_bulk(&mut out, *b"12345678", 8, b"x");
            assert_eq!(out, b"+OK\r\n$3\r\nabc\r\n$0\r\n\r\n12345678x\r\n");
        }
    }
}
