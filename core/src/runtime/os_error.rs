//! The operating system's words for its errors, as C programs print them.

use std::io;

/// `Address already in use`, where `io::Error` would print `Address already in use (os error 98)`.
pub fn error_text(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(errno) => {
            text.strip_suffix(&format!(" (os error {errno})")).map_or(text.clone(), str::to_string)
        }
        None => text,
    }
}

pub const INVALID: i32 = libc::EINVAL;
pub const NO_ENTRY: i32 = libc::ENOENT;
pub const NO_SPACE: i32 = libc::ENOSPC;
pub const NOT_PERMITTED: i32 = libc::EPERM;
pub const ACCESS: i32 = libc::EACCES;
pub const NOT_SUPPORTED: i32 = libc::ENOTSUP;
pub const RANGE: i32 = libc::ERANGE;
pub const DOMAIN: i32 = libc::EDOM;
pub const BAD_FILE: i32 = libc::EBADF;
pub const FILE_TOO_BIG: i32 = libc::EFBIG;
pub const ILLEGAL_SEEK: i32 = libc::ESPIPE;
pub const EXISTS: i32 = libc::EEXIST;
pub const ALREADY: i32 = libc::EALREADY;
pub const BUSY: i32 = libc::EBUSY;

/// Sets the error number of this thread, which C code reads.
pub fn set(errno: i32) {
    // SAFETY: the place is this thread's.
    unsafe { *libc::__errno_location() = errno };
}

/// The error number of this thread.
pub fn last() -> i32 {
    // SAFETY: the place is this thread's.
    unsafe { *libc::__errno_location() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_left_out() {
        assert_eq!(error_text(&io::Error::from_raw_os_error(libc::EADDRINUSE)), "Address already in use");
        assert_eq!(error_text(&io::Error::other("as it is")), "as it is");
    }
}
