//! Error texts that quote what the client sent: its bytes as they are, up to a NUL, on one line.

use super::{Server, on_one_and_three_shards};

#[test]
fn an_error_quotes_the_bytes_of_the_client() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET k v", "+OK")]);
        server.expect_bytes(&[
            (b"\xff\0z x\ny q\0w", b"-ERR unknown command '\xff', with args beginning with: 'x y' 'q' "),
            (b"CLIENT a\xffb\0c", b"-ERR unknown subcommand 'a\xffb'. Try CLIENT HELP."),
            (b"EXPIRE k 10 a\xffb\r\nc\0d", b"-ERR Unsupported option a\xffb  c"),
            (b"EXPIRE k 10 a\xff\r\n", b"-ERR Unsupported option a\xff"),
            (b"HELLO 2 a\xffb\0c", b"-ERR Syntax error in HELLO option 'a\xffb'"),
            (
                b"CONFIG SET a\xffb\0c 1",
                b"-ERR Unknown option or number of arguments for CONFIG SET - 'a\xffb'",
            ),
            (b"CLIENT KILL TYPE a\xffb\0c", b"-ERR Unknown client type 'a\xffb'"),
            (b"CLIENT KILL USER a\xffb\0c", b"-ERR No such user 'a\xffb'"),
            (b"CLIENT LIST TYPE a\xffb\0c", b"-ERR Unknown client type 'a\xffb'"),
            (b"REPLCONF a\xffb\0c 1", b"-ERR Unrecognized REPLCONF option: a\xffb"),
            (b"REPLCONF rdb-filter-only a\xffb", b"-ERR Unsupported rdb-filter-only option: a\xffb"),
            (
                b"DEBUG a\xffb\0c",
                b"-ERR unknown subcommand or wrong number of arguments for 'a\xffb'. Try DEBUG HELP.",
            ),
        ]);
    });
}

#[test]
fn an_unknown_command_repeats_its_first_128_bytes_of_arguments() {
    const START: &str = "-ERR unknown command 'foo', with args beginning with: ";
    let y = |count: usize| "y".repeat(count);
    on_one_and_three_shards(|server: &mut Server| {
        for (args, echo) in [
            (y(128), format!("'{}' ", y(128))),
            (y(129), format!("'{}' ", y(128))),
            (format!("{} z", y(125)), format!("'{}' ", y(125))),
            (format!("{} zzzz", y(124)), format!("'{}' 'z' ", y(124))),
            (format!("{}  w", y(123)), format!("'{}' '' ", y(123))),
            (
                format!("{} {} {} {}", y(60), "z".repeat(60), "w".repeat(60), y(60)),
                format!("'{}' '{}' 'ww' ", y(60), "z".repeat(60)),
            ),
        ] {
            assert_eq!(server.call(&format!("foo {args}")), format!("{START}{echo}\r\n"));
        }
        let name = "g".repeat(200);
        let shown = &name[..128];
        assert_eq!(
            server.call(&name),
            format!("-ERR unknown command '{shown}', with args beginning with: \r\n")
        );
        assert_eq!(server.call(&format!("ACL CAT {name}")), format!("-ERR Unknown category '{shown}'\r\n"));
    });
}

#[test]
fn debug_error_replies_with_its_argument_and_is_not_counted_as_an_error() {
    on_one_and_three_shards(|server: &mut Server| {
        server.expect_bytes(&[
            (b"DEBUG ERROR FOO\xff\0\r\nbar\n", b"-FOO\xff\0  bar "),
            (b"DEBUG ERROR FOO", b"-FOO"),
        ]);
        assert_eq!(server.sum(|stats| stats.error_replies.get()), 0);
    });
}
