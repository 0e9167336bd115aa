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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_left_out() {
        assert_eq!(error_text(&io::Error::from_raw_os_error(libc::EADDRINUSE)), "Address already in use");
        assert_eq!(error_text(&io::Error::other("as it is")), "as it is");
    }
}
