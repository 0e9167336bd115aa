use super::*;

#[test]
fn patterns_match_as_in_redis() {
    for (pattern, text) in [
        ("", ""),
        ("*", "abc"),
        ("a*c", "abbc"),
        ("a*c", "ac"),
        ("h?llo", "hello"),
        ("h[ae]llo", "hallo"),
        ("h[^e]llo", "hallo"),
        ("h[a-b]llo", "hbllo"),
        ("h[b-a]llo", "hallo"),
        ("h\\*llo", "h*llo"),
        ("\\", "\\"),
        ("*a*b*", "xxaxxbxx"),
        ("[\\]]", "]"),
        ("[a", "a"),
        ("a[^", "ab"),
    ] {
        assert!(glob_matches(pattern.as_bytes(), text.as_bytes()), "{pattern:?} {text:?}");
    }
}
