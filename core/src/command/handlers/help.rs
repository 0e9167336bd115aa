//! What `<CONTAINER> HELP` replies: a heading, lines of syntax and explanation, and HELP's own two lines.

use crate::protocol::reply::Reply;

/// Writes the help of `container`, given in upper case. `lines` alternate as the writer likes: syntax at the margin,
/// explanations indented by four blanks.
pub fn reply_help(reply: &mut Reply<'_>, container: &str, lines: &[&str]) {
    reply.array(lines.len() + 3);
    reply.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for line in lines {
        reply.simple(line);
    }
    reply.simple("HELP");
    reply.simple("    Prints this help.");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::reply::Resp;

    #[test]
    fn help_is_an_array_of_status_lines() {
        let mut out = Vec::new();
        reply_help(&mut Reply::new(&mut out, Resp::V2), "CONFIG", &["REWRITE", "    Writes the file."]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "*5\r\n+CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n+REWRITE\r\n\
             +    Writes the file.\r\n+HELP\r\n+    Prints this help.\r\n"
        );
    }
}
