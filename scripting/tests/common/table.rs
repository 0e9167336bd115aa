//! The scripts of the conformance test and the lines of its replies.

/// The name that a run has in the lines.
pub const SCRIPT_NAME: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a library has in it whose function `f` is called.
pub const FUNCTION: &str = "\"f\"";

/// The longest reply that is written in full; of a longer one, its length and its end.
const LINE_LEN_MAX: usize = 2_000;

pub fn scripts(text: &str) -> impl Iterator<Item = &str> {
    text.trim_end_matches('\n').split("\n----\n")
}

/// A reply as it is written: the SHA1 of the script is replaced, for it tells nothing.
pub fn line(reply: &[u8]) -> String {
    let mut text = reply.escape_ascii().to_string();
    if let Some(at) = text.find(" script: ") {
        let name = at + " script: ".len();
        let is_digest = text[name..].split(',').next().is_some_and(|name| name.len() == SCRIPT_NAME.len());
        if is_digest {
            text.replace_range(name..name + SCRIPT_NAME.len(), SCRIPT_NAME);
        }
    }
    if text.len() > LINE_LEN_MAX {
        text = format!("{} bytes ...{}", reply.len(), &text[text.len() - 200..]);
    }
    text
}
