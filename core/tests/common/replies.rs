//! Replies, taken apart.

/// The strings of a reply, in order; `None`: a null.
pub fn strings(reply: &str) -> Vec<Option<String>> {
    let mut found = Vec::new();
    let mut lines = reply.split("\r\n");
    while let Some(line) = lines.next() {
        if line == "$-1" || line == "_" {
            found.push(None);
        } else if line.starts_with('$') {
            found.push(lines.next().map(str::to_string));
        }
    }
    found
}
