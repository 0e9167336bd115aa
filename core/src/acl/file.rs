//! ACL files: a user a line, `user <name> <rule> ...`.

use crate::acl::rules::{RuleContext, RuleError, has_blanks, merge_selectors};
use crate::acl::users::Users;

/// Adds the users of a file's text. `name`: the file's, for errors.
///
/// # Errors
/// All that is wrong in it, in Redis' words.
pub(super) fn read(users: &mut Users, name: &str, text: &[u8], ctx: RuleContext<'_>) -> Result<(), String> {
    let mut errors = String::new();
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let line = line.trim_ascii();
        if !line.is_empty() {
            read_line(users, &format!("{name}:{number}"), number, line, ctx, &mut errors);
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    errors
        .push_str("WARNING: ACL errors detected, no change to the previously active ACL rules was performed");
    Err(errors)
}

/// `place`: the file and the line.
fn read_line(
    users: &mut Users,
    place: &str,
    number: usize,
    line: &[u8],
    ctx: RuleContext<'_>,
    errors: &mut String,
) {
    let shown = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    if line.contains(&0) {
        // Redis reads up to the NUL, and goes on with the next line, which makes other rules of it than those that stand there.
        errors.push_str(&format!("{place}: contains a null character. "));
        return;
    }
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [b"user", user_name, rules @ ..] = words.as_slice() else {
        errors.push_str(&format!("{place} should start with user keyword followed by the username. "));
        return;
    };
    if has_blanks(user_name) {
        errors.push_str(&format!("'{place}: username '{}' contains invalid characters. ", shown(user_name)));
        return;
    }
    if users.get(user_name).is_some() {
        errors.push_str(&format!("WARNING: Duplicate user '{}' found on line {number}. ", shown(user_name)));
        return;
    }
    let Ok(rules) = merge_selectors(rules) else {
        errors.push_str(&format!("{place}: Unmatched parenthesis in selector definition."));
        return;
    };
    let mut user = users.blank(user_name, ctx);
    let mut has_failed = false;
    for rule in rules {
        let rule = rule.trim_ascii();
        match user.apply(rule, ctx) {
            Ok(()) => {}
            // What names no command is no secret.
            Err(error @ RuleError::Unknown) => errors.push_str(&format!(
                "{place}: Error in applying operation '{}': {}. ",
                shown(rule),
                error.text()
            )),
            // Errors behind the first may be due to that.
            Err(error) if !has_failed => {
                errors.push_str(&format!("{place}: {}. ", error.text()));
                has_failed = true;
            }
            Err(_) => {}
        }
    }
    users.insert(user);
}
