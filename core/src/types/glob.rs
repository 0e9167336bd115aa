//! Glob patterns as Redis has them, for KEYS, SCAN MATCH, CONFIG GET, PSUBSCRIBE and ACLs.
//!
//! `*` matches any bytes, `?` one byte, `[abc]` `[a-c]` `[^abc]` one byte of a set, `\x` the byte x itself. The
//! oddities are Redis': an unclosed set ends with the pattern and matches as if it were closed, a range may be written
//! backwards, a `\` at the very end stands for itself, `\x` within a set is case-sensitive even in a match that ignores
//! case, and the empty text matches only the empty pattern, not `*`.
//!
//! A pattern without stars matches in one pass. With stars, it is enough to retry the last one seen with more bytes: if
//! the rest fails with a later star's leftmost match, more bytes for an earlier star would only leave that later star
//! fewer places to match. So there is one place to go back to and no recursion, and matching is O(pattern x text)
//! however many stars there are.

/// Whether `text` matches `pattern`.
pub fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_with(pattern, text, |byte| byte)
}

/// As [`glob_matches`], ignoring the case of ASCII letters.
pub fn glob_matches_nocase(pattern: &[u8], text: &[u8]) -> bool {
    matches_with(pattern, text, |byte| byte.to_ascii_lowercase())
}

#[inline]
fn matches_with(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut pattern_at, mut text_at) = (0, 0);
    // The position after the last star, and how much of the text the stars have matched so far.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(pattern_at) == Some(&b'*') {
            pattern_at += 1;
            if pattern_at == pattern.len() {
                return true;
            }
            retry = Some((pattern_at, text_at));
            continue;
        }
        if text_at < text.len() {
            if let Some(next) = match_one(&pattern[pattern_at..], text[text_at], &fold) {
                pattern_at += next;
                text_at += 1;
                continue;
            }
        } else if pattern_at == pattern.len() {
            return true;
        }
        let Some((star, taken)) = retry else { return false };
        if taken >= text.len() {
            return false;
        }
        retry = Some((star, taken + 1));
        (pattern_at, text_at) = (star, taken + 1);
    }
}

/// Matches one byte against the beginning of a pattern, which is not a star. Returns the length of the part of the
/// pattern that matched it.
#[inline]
fn match_one(pattern: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ..] => match_set(pattern, byte, fold),
        [b'\\', literal, ..] => (fold(literal) == fold(byte)).then_some(2),
        [literal, ..] => (fold(literal) == fold(byte)).then_some(1),
    }
}

/// As `match_one`, for a pattern that begins with `[`.
fn match_set(pattern: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> Option<usize> {
    let folded = fold(byte);
    let negated = pattern.get(1) == Some(&b'^');
    let mut at = if negated { 2 } else { 1 };
    let mut found = false;
    loop {
        match pattern[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => {
                found |= literal == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                let (from, to) = (from.min(to), from.max(to));
                found |= (fold(from)..=fold(to)).contains(&folded);
                at += 3;
            }
            [literal, ..] => {
                found |= fold(literal) == folded;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests;
