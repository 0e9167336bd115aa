//! The modules that are linked into the server: clients see their commands as Redis' own.

use crate::harness::{SETUPS, Server};

/// The keys are those of the key specs, though the command may open another: of several STOREs, the last one counts.
#[test]
fn keys_of_a_command_that_may_store_are_shown_as_by_redis() {
    let server = Server::start_with(SETUPS[0], &[]);
    let mut client = server.connect();
    for (request, keys) in [
        ("GEORADIUS k 0 0 1 m", "k"),
        ("GEORADIUS k 0 0 1 m STORE", "k"),
        ("GEORADIUS k 0 0 1 m STORE a", "k a"),
        ("GEORADIUS k 0 0 1 m STORE a STORE b", "k a"),
        ("GEORADIUS k 0 0 1 m STOREDIST a STORE b", "k b a"),
        ("GEORADIUSBYMEMBER k m 1 m STOREDIST a STOREDIST b", "k a"),
        ("SORT k STORE a STORE b", "k b"),
        ("XREAD STREAMS a b 0 0", "a b"),
    ] {
        let mut args = vec!["COMMAND", "GETKEYS"];
        args.extend(request.split(' '));
        let expected: String = keys.split(' ').map(|key| format!("${}\r\n{key}\r\n", key.len())).collect();
        let expected = format!("*{}\r\n{expected}", keys.split(' ').count());
        assert_eq!(client.call(&args), expected, "{request}");
    }
    assert_eq!(client.call(&["GEOADD", "k", "1", "1", "m"]), ":1\r\n");
    let stores = ["GEORADIUS", "k", "1", "1", "1", "m", "STORE", "a", "STORE", "b"];
    assert_eq!(client.call(&stores), ":1\r\n");
    assert_eq!(client.call(&["EXISTS", "a"]), ":0\r\n");
    assert_eq!(client.call(&["EXISTS", "b"]), ":1\r\n");
}

/// First key, last key and step of COMMAND INFO, as Redis 7.0.15 has them for commands with several groups of keys.
#[test]
fn clients_without_key_specs_find_the_same_keys_as_in_redis() {
    let server = Server::start_with(SETUPS[0], &[]);
    let mut client = server.connect();
    for (command, range, moves) in [
        ("sinterstore", (1, -1, 1), false),
        ("sunionstore", (1, -1, 1), false),
        ("sdiffstore", (1, -1, 1), false),
        ("pfmerge", (1, -1, 1), false),
        ("pfcount", (1, -1, 1), false),
        ("bitop", (2, -1, 1), false),
        ("smove", (1, 2, 1), false),
        ("rename", (1, 2, 1), false),
        ("mset", (1, -1, 2), false),
        ("zunionstore", (1, 1, 1), true),
        ("georadius", (1, 1, 1), true),
        ("geosearchstore", (1, 2, 1), false),
        ("eval", (0, 0, 0), true),
    ] {
        let info = client.call(&["COMMAND", "INFO", command]);
        let flags_end =
            info.find("\r\n:").and_then(|arity| Some(arity + 3 + info[arity + 3..].find("\r\n:")?));
        let (before, after) = info.split_at(flags_end.expect("the first key follows the flags"));
        let (first, last, step) = range;
        assert!(after.starts_with(&format!("\r\n:{first}\r\n:{last}\r\n:{step}\r\n")), "{command}: {after}");
        assert_eq!(before.contains("+movablekeys"), moves, "{command}: {before}");
    }
}

#[test]
fn errors_quote_arguments_with_the_bytes_that_the_client_has_sent() {
    let server = Server::start_with(SETUPS[0], &[]);
    let mut client = server.connect();
    assert_eq!(client.call(&["PFADD", "h", "a"]), ":1\r\n");
    for (argument, quoted) in [(&b"\xff"[..], &b"\xff"[..]), (b"a\0b", b"a")] {
        client.request(&[b"PFDEBUG", argument, b"h"]);
        assert_eq!(client.reply(), [b"-ERR Unknown PFDEBUG subcommand '", quoted, b"'\r\n"].concat());
    }
}

#[test]
fn keys_that_they_add_are_announced_as_new() {
    let server = Server::start_with(SETUPS[0], &[]);
    let (mut client, mut listener) = (server.connect(), server.connect());
    client.call(&["CONFIG", "SET", "notify-keyspace-events", "En"]);
    listener.call(&["SUBSCRIBE", "__keyevent@0__:new"]);
    for request in [
        "SETBIT a 1 1",
        "SETBIT a 2 1",
        "BITFIELD b SET u8 0 1",
        "BITOP NOT c a",
        "SETEX i 100 x",
        "BITOP OR i a c",
        "RPUSH j x",
        "BITOP OR j a c",
        "SETEX k 100 x",
        "BITOP OR k a k",
        "PFADD d x",
        "PFMERGE e d",
        "GEOADD f 1 1 m",
        "GEOADD f 1 1 n",
        "GEORADIUS f 1 1 1 m STORE g",
        "GEOSEARCHSTORE h f FROMMEMBER m BYRADIUS 1 m",
    ] {
        let reply = client.call(&request.split(' ').collect::<Vec<_>>());
        assert!(!reply.starts_with('-'), "{request}: {reply}");
    }
    for key in ["a", "b", "c", "i", "j", "k", "d", "e", "f", "g", "h"] {
        let message = format!("*3\r\n$7\r\nmessage\r\n$18\r\n__keyevent@0__:new\r\n$1\r\n{key}\r\n");
        assert_eq!(String::from_utf8_lossy(&listener.reply()), message);
    }
    for key in ["i", "j", "k"] {
        assert_eq!(client.call(&["TYPE", key]), "+string\r\n");
        assert_eq!(client.call(&["TTL", key]), ":-1\r\n", "{key}");
    }
}

#[test]
fn commands_for_tests_are_documented_as_such() {
    let server = Server::start_with(SETUPS[0], &[]);
    let mut client = server.connect();
    for command in ["pfdebug", "pfselftest"] {
        let docs = client.call(&["COMMAND", "DOCS", command]);
        assert!(docs.contains("$9\r\ndoc_flags\r\n*1\r\n+syscmd\r\n"), "{docs}");
    }
    assert!(!client.call(&["COMMAND", "DOCS", "pfadd"]).contains("doc_flags"));
}
