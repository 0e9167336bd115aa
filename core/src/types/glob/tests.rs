//! Glob patterns: Redis' behaviour, and agreement with a recursive matcher that follows the definition.

use super::*;

#[track_caller]
fn assert_matches(pattern: &str, text: &str, expected: bool) {
    assert_eq!(glob_matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} {text:?}");
}

#[test]
fn patterns_match_as_in_redis() {
    for (pattern, text) in [
        ("", ""),
        ("*", "abc"),
        ("**", "abc"),
        ("a*c", "abbc"),
        ("a*c", "ac"),
        ("a*", "a"),
        ("*a", "a"),
        ("h?llo", "hello"),
        ("h[ae]llo", "hallo"),
        ("h[^e]llo", "hallo"),
        ("h[a-b]llo", "hbllo"),
        ("h[b-a]llo", "hallo"),
        ("h\\*llo", "h*llo"),
        ("\\", "\\"),
        ("a\\", "a\\"),
        ("*a*b*", "xxaxxbxx"),
        ("[\\]]", "]"),
        ("[\\", "\\"),
        ("[a", "a"),
        ("a[^", "ab"),
        ("[a-]", "]"),
        ("[]", "x"),
        ("[^]", "x"),
    ] {
        let expected = !matches!(pattern, "[]");
        assert_matches(pattern, text, expected);
    }
    for (pattern, text) in [
        ("*", ""),
        ("a", ""),
        ("", "a"),
        ("h?llo", "hllo"),
        ("h[^e]llo", "hello"),
        ("h\\*llo", "hxllo"),
        ("[", "["),
        ("a*b*c", "abbd"),
        ("?", ""),
        ("*?", ""),
        ("foo", "FOO"),
    ] {
        assert_matches(pattern, text, false);
    }
}

#[test]
fn case_can_be_ignored() {
    assert!(glob_matches_nocase(b"Fo[N-P]*", b"fOObAR"));
    assert!(glob_matches_nocase(b"\\F", b"f"));
    assert!(!glob_matches_nocase(b"f[^O]", b"fo"));
    // Redis compares these exactly.
    assert!(!glob_matches_nocase(b"[\\F]", b"f"));
}

/// The official suite's "Regression for pattern matching with very long nested loops": a recursive matcher takes
/// exponential time here.
#[test]
fn many_stars_take_no_longer_than_pattern_times_text() {
    let text = vec![b'a'; 50_000];
    let mut pattern = b"a*".repeat(20_000);
    pattern.push(b'b');
    assert!(!glob_matches(&pattern, &text));
    pattern.pop();
    assert!(glob_matches(&pattern, &text));
}

/// The definition, by recursion: what the iterative matcher has to agree with.
fn matches_by_definition(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|taken| matches_by_definition(rest, &text[taken..])),
        ([], []) => true,
        ([], _) | (_, []) => false,
        ([b'?', rest @ ..], [_, tail @ ..]) => matches_by_definition(rest, tail),
        ([byte, rest @ ..], [first, tail @ ..]) => byte == first && matches_by_definition(rest, tail),
    }
}

#[test]
fn stars_and_question_marks_agree_with_their_definition() {
    // All patterns of up to five of `ab*?` against all texts of up to six of `ab`.
    let words = |letters: &[u8], len_max: usize| {
        let mut all = vec![vec![]];
        let mut from = 0;
        for _ in 0..len_max {
            let to = all.len();
            for at in from..to {
                for &letter in letters {
                    let mut longer: Vec<u8> = all[at].clone();
                    longer.push(letter);
                    all.push(longer);
                }
            }
            from = to;
        }
        all
    };
    let (pattern_len, text_len) = if cfg!(miri) { (3, 3) } else { (5, 6) };
    let texts = words(b"ab", text_len);
    for pattern in words(b"ab*?", pattern_len) {
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let expected = matches_by_definition(&pattern, text);
            assert_eq!(glob_matches(&pattern, text), expected, "{pattern:?} {text:?}");
        }
    }
}
