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
