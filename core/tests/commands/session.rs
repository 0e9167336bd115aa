//! Commands over the connection and the server: HELLO, SELECT, CLIENT, COMMAND, SLOWLOG, DEBUG, LOLWUT.

use super::{NULL, Server, bulk, on_one_and_three_shards};
use shardis_core::runtime::driver::{Events, PeerAddr};
use std::io::Read;
use std::os::unix::net::UnixStream;

const WRONG_PASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
const BAD_NAME: &str = "-ERR Client names cannot contain spaces, newlines or special characters.";
const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";

/// One field of CLIENT INFO.
fn client_field(server: &mut Server, name: &str) -> String {
    field(&server.call("CLIENT INFO"), name)
}

/// One field of the first line of CLIENT LIST that has it.
fn field(line: &str, name: &str) -> String {
    let value = line.split(' ').find_map(|field| field.strip_prefix(&format!("{name}=")));
    value.expect("a line has all fields").to_string()
}

#[test]
fn a_change_of_the_users_is_answered_when_all_shards_go_by_it() {
    let mut server = Server::new(3);
    let client = server.join(0);
    for words in [&["CONFIG", "SET", "requirepass", "secret"][..], &["ACL", "SETUSER", "u", "on"]] {
        server.cluster.hold(0, 1);
        server.cluster.request(client, words);
        assert_eq!(server.heard_by(client), "", "{words:?}");

        server.cluster.release(0, 1);

        assert_eq!(server.heard_by(client), "+OK\r\n");
    }
}

#[test]
fn hello_acts_option_by_option() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("HELLO 2 SETNAME a foo", "-ERR Syntax error in HELLO option 'foo'"),
            ("CLIENT GETNAME", &bulk("a")),
            ("HELLO 3 AUTH x y foo", WRONG_PASS),
            ("HELLO 3 SETNAME b AUTH x y", WRONG_PASS),
            ("CLIENT GETNAME", &bulk("b")),
            ("HELLO 2 SETNAME nl\n SETNAME c", BAD_NAME),
            ("HELLO 3 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'"),
            ("HELLO 3 AUTH x", "-ERR Syntax error in HELLO option 'AUTH'"),
            ("HELLO 4 foo", "-NOPROTO unsupported protocol version"),
            ("HELLO 02", "-ERR Protocol version is not an integer or out of range"),
            ("CLIENT GETNAME", &bulk("b")),
            ("CLIENT SETNAME ", "+OK"),
            ("CLIENT GETNAME", NULL),
        ]);
        assert!(server.call("HELLO 3 AUTH default any SETNAME c").starts_with("%7\r\n"));
        server.expect(&[("CLIENT GETNAME", &bulk("c"))]);
    });
}

#[test]
fn hello_without_a_required_login_explains_how_to_log_in() {
    const NO_AUTH: &str = "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH \
                           <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                           version at the same time";
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET requirepass pw", "+OK"), ("RESET", "+RESET")]);
        server.expect(&[
            ("HELLO", NO_AUTH),
            ("HELLO 3 SETNAME a", NO_AUTH),
            ("HELLO 3 AUTH default no", WRONG_PASS),
            ("GET k", "-NOAUTH Authentication required."),
        ]);
        assert!(server.call("HELLO 2 AUTH default pw").starts_with("*14\r\n"));
        // The name was given although the HELLO failed.
        server.expect(&[("CLIENT GETNAME", &bulk("a"))]);
    });
}

#[test]
fn a_database_beyond_32_bits_is_out_of_range() {
    const BEYOND: &str = "-ERR value is out of range, value must between -2147483648 and 2147483647";
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SELECT 2147483648", BEYOND),
            ("SELECT 4294967296", BEYOND),
            ("SELECT -2147483649", BEYOND),
            ("SELECT 2147483647", "-ERR DB index is out of range"),
            ("SELECT 99999999999999999999", NOT_INTEGER),
            ("SELECT 00", NOT_INTEGER),
            ("MULTI", "+OK"),
            ("SELECT 4294967296", "+QUEUED"),
            ("EXEC", &format!("*1\r\n{BEYOND}")),
        ]);
    });
}

#[test]
fn subcommands_with_too_many_arguments_are_named() {
    const HELPS: [(&str, &str, &str); 5] = [
        ("SLOWLOG GET a b", "GET", "SLOWLOG"),
        ("SLOWLOG GET 1 2", "GET", "SLOWLOG"),
        ("CLIENT UNBLOCK 1 ERROR x", "UNBLOCK", "CLIENT"),
        ("CLIENT PAUSE 1 ALL x", "PAUSE", "CLIENT"),
        ("DEBUG OBJECT k x", "OBJECT", "DEBUG"),
    ];
    on_one_and_three_shards(|server| {
        server.expect(&[("SET k v", "+OK")]);
        for (words, sub, container) in HELPS {
            let error = format!(
                "-ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {container} HELP."
            );
            server.expect(&[(words, &error)]);
        }
    });
}

#[test]
fn lolwut_judges_the_measures_of_its_versions() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("LOLWUT VERSION 5 a", NOT_INTEGER),
            ("LOLWUT VERSION 5 1 2 b", NOT_INTEGER),
            ("LOLWUT VERSION 6 1 b", NOT_INTEGER),
            ("LOLWUT VERSION x", NOT_INTEGER),
        ]);
        for taken in ["LOLWUT VERSION 5 1 2 3 x", "LOLWUT VERSION 6 1 2 x", "LOLWUT VERSION 7 a", "LOLWUT a"]
        {
            assert!(server.call(taken).starts_with('$'), "{taken}");
        }
    });
}

#[test]
fn command_info_of_an_unknown_command_is_null() {
    on_one_and_three_shards(|server| {
        server.expect(&[("COMMAND INFO nosuch", "*1\r\n$-1")]);
        server.call("HELLO 3");
        server.expect(&[("COMMAND INFO nosuch", "*1\r\n_")]);
    });
}

#[test]
fn reset_leaves_no_evict_on() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CLIENT NO-EVICT ON", "+OK"), ("RESET", "+RESET")]);
        assert_eq!(client_field(server, "flags"), "e");
    });
}

#[test]
fn client_info_in_a_transaction_shows_the_database_selected_before_it() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("SELECT 2", "+OK"),
            ("MULTI", "+OK"),
            ("SELECT 0", "+QUEUED"),
            ("CLIENT INFO", "+QUEUED"),
            ("SELECT 3", "+QUEUED"),
            ("CLIENT INFO", "+QUEUED"),
        ]);
        let reply = server.call("EXEC");
        let dbs: Vec<&str> = reply.split(' ').filter(|field| field.starts_with("db=")).collect();
        assert_eq!(dbs, ["db=0", "db=3"], "{reply}");
    });
}

#[test]
fn client_list_shows_the_command_that_a_pause_holds() {
    on_one_and_three_shards(|server| {
        let (held, queuing) = (server.cluster.connect(0), server.cluster.connect(0));
        server.cluster.call(held, &["PING"]);
        server.cluster.call(queuing, &["MULTI"]);
        server.expect(&[("CLIENT PAUSE 1000 WRITE", "+OK")]);
        let value = "v".repeat(1000);
        server.cluster.request(held, &["SET", "k", &value]);
        server.cluster.request(held, &["SET", "k", "2"]);
        server.cluster.request(queuing, &["GET", "k"]);
        server.cluster.request(queuing, &["SET", "k", "3"]);
        server.cluster.settle();

        let list = server.call("CLIENT LIST");
        let shown: Vec<[String; 4]> = list
            .lines()
            .filter(|line| line.starts_with("id="))
            .skip(1)
            .map(|line| ["flags", "cmd", "argv-mem", "qbuf"].map(|name| field(line, name)))
            .collect();
        assert_eq!(shown[0], ["b", "set", "1004", "27"].map(str::to_string), "{list}");
        assert_eq!(shown[1], ["xb", "set", "5", "0"].map(str::to_string), "{list}");
    });
}

#[test]
fn client_list_shows_the_last_command_even_if_it_was_refused() {
    on_one_and_three_shards(|server| {
        let client = server.join(0);
        server.call_as(client, "ACL SETUSER u on >p -@all +get +auth ~a");
        server.call_as(client, "AUTH u p");
        for (request, shown) in [
            ("GET a", "get"),
            ("SET a 1", "set"),
            ("GET b", "get"),
            ("SET", "set"),
            ("nosuch", "NULL"),
            ("GET c", "get"),
        ] {
            server.call_as(client, request);
            let list = server.call("CLIENT LIST");
            let line = list.lines().find(|line| line.contains(" user=u ")).expect("it is connected");
            assert_eq!(field(line, "cmd"), shown, "{request}");
        }
    });
}

/// Redis' own values, so that users can compare two servers.
#[test]
fn digests_are_those_of_redis() {
    on_one_and_three_shards(|server| {
        const ZERO: &str = "0000000000000000000000000000000000000000";
        server.expect(&[("DEBUG DIGEST", &format!("+{ZERO}")), ("SET key:0 value:0", "+OK")]);
        server.expect(&[
            (
                "DEBUG DIGEST-VALUE key:0 none",
                &format!("*2\r\n+c15f34c747bf411833c10208c03e1da1bb7da7cf\r\n+{ZERO}"),
            ),
            ("DEBUG DIGEST", "+0f7053e02980da31a84b3242f00dfef0a32f9f32"),
            ("SELECT 3", "+OK"),
            ("SET key:1 12 EX 100", "+OK"),
            ("DEBUG DIGEST-VALUE key:1", "*1\r\n+83df3a94c43338a2db2a05ddb5dbb794b842c619"),
            ("DEBUG DIGEST", "+62c674503be933e076455593ec8abc26c1ada492"),
            ("DEBUG SET-ACTIVE-EXPIRE 0", "+OK"),
            ("SET gone x PX 1", "+OK"),
        ]);
        // It exists until a look-up finds that it has expired.
        server.wait_ms(50);
        server.expect(&[
            ("DEBUG DIGEST", "+fb9167e780ec4e6bf97a283f760d84267d2577c5"),
            ("DEBUG DIGEST-VALUE gone", "*1\r\n+0745672cb1bf060476eedeb8a28f5ffe1ff5a2be"),
        ]);
    });
}

#[test]
fn a_removed_password_does_not_restrict_clients_that_had_not_logged_in() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET requirepass pw", "+OK")]);
        server.cluster.tick();
        let stranger = server.cluster.connect(0);
        assert_eq!(server.cluster.call(stranger, &["GET", "a"]), "-NOAUTH Authentication required.\r\n");
        server.expect(&[("CONFIG SET requirepass ", "+OK")]);
        server.cluster.tick();
        let request = ["MSET", "a", "1", "b", "1", "c", "1", "d", "1", "e", "1", "f", "1"];
        assert_eq!(server.cluster.call(stranger, &request), "+OK\r\n");
        // HELLO still requires a login, as in Redis.
        assert!(server.cluster.call(stranger, &["HELLO"]).starts_with("-NOAUTH HELLO must be called"));
    });
}

#[test]
fn keywords_and_cursors_end_at_a_nul() {
    on_one_and_three_shards(|server| {
        server.expect_bytes(&[
            (b"SET k v EX\0zz 100", b"+OK"),
            (b"SET k w NX\0", b"$-1"),
            (b"EXPIRE k 10 XX\0a", b":1"),
            (b"COPY k {k}2 REPLACE\0", b":1"),
            (b"SCAN \0z MATCH\0 none", b"*2\r\n$1\r\n0\r\n*0"),
            (b"CLIENT NO-EVICT OFF\0x", b"+OK"),
            (b"CLIENT UNBLOCK 1000 ERROR\0", b":0"),
            (b"CLIENT KILL TYPE\0 pubsub\0", b":0"),
            (b"DEBUG SLEEP\0 0", b"+OK"),
            (b"OBJECT ENCODING\0 k", b"-ERR unknown subcommand 'ENCODING'. Try OBJECT HELP."),
        ]);
        server.expect(&[("GET k", &bulk("v")), ("TTL {k}2", ":10")]);
    });
}

#[test]
fn wait_without_replicas_waits_for_its_timeout() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("WAIT 0 0", ":0"),
            ("WAIT -1 1000", ":0"),
            ("WAIT x 0", "-ERR value is not an integer or out of range"),
            ("WAIT 1 x", "-ERR timeout is not an integer or out of range"),
            ("WAIT 1 -1", "-ERR timeout is negative"),
            ("MULTI", "+OK"),
            ("WAIT 1 1000", "+QUEUED"),
            ("EXEC", "*1\r\n:0"),
        ]);
        let cluster = &mut server.cluster;
        let other = cluster.connect(0);
        cluster.request(other, &["WAIT", "2", "50"]);
        cluster.settle();
        assert_eq!(cluster.received(other), b"");
        cluster.clock.advance_ms(51);
        cluster.tick();
        cluster.settle();
        assert_eq!(cluster.received(other), b":0\r\n");
    });
}

#[test]
fn what_clients_ask_of_a_cluster_is_refused() {
    on_one_and_three_shards(|server| {
        for request in ["ASKING", "READONLY", "READWRITE"] {
            server.expect(&[(request, "-ERR This instance has cluster support disabled")]);
        }
    });
}

/// What the server says to a connection from there before it is served; it is closed then.
fn refusal(server: &mut Server, peer: PeerAddr) -> String {
    let (own, theirs) = UnixStream::pair().expect("there are descriptors");
    server.cluster.tick();
    server.cluster.workers[0].accepted(0, theirs.into(), peer);
    // One that is served is handed to a shard's driver, which there is none of: it is closed as well.
    server.cluster.tick();
    server.cluster.settle();
    server.cluster.tick();
    let mut text = String::new();
    let mut own = own;
    own.read_to_string(&mut text).expect("it was closed");
    text
}

#[test]
fn protected_mode_keeps_strangers_from_a_server_without_a_password() {
    let tcp = |address: &str| PeerAddr::Tcp(address.parse().expect("an address"));
    on_one_and_three_shards(|server| {
        let far = ["192.0.2.1:5000", "[2001:db8::1]:5000", "[::ffff:192.0.2.1]:5000"];
        let near = ["127.0.0.1:5000", "[::1]:5000", "[::ffff:127.0.0.1]:5000"];
        for address in far {
            let text = refusal(server, tcp(address));
            assert!(
                text.starts_with("-DENIED Redis is running in protected mode because protected"),
                "{text}"
            );
        }
        assert_eq!(server.sum(|stats| stats.rejected_connections.get()), far.len() as u64);
        for peer in near.map(tcp).into_iter().chain([PeerAddr::Unix]) {
            assert_eq!(refusal(server, peer), "");
        }

        server.expect(&[("CONFIG SET protected-mode no", "+OK")]);
        assert_eq!(refusal(server, tcp(far[0])), "");
        server.expect(&[("CONFIG SET protected-mode yes", "+OK"), ("CONFIG SET requirepass pw", "+OK")]);
        assert_eq!(refusal(server, tcp(far[0])), "");
        server.expect(&[("CONFIG SET requirepass ", "+OK")]);
        assert!(refusal(server, tcp(far[0])).starts_with("-DENIED"));
        assert_eq!(server.sum(|stats| stats.rejected_connections.get()), far.len() as u64 + 1);
    });
}

#[test]
fn a_wait_with_an_end_is_in_the_table_of_timeouts() {
    on_one_and_three_shards(|server| {
        let shard = server.cluster.workers.len() - 1;
        let clients: Vec<usize> = (0..3).map(|_| server.cluster.connect(shard)).collect();
        for (&client, time) in clients.iter().zip(["0", "5", "7"]) {
            server.cluster.request(client, &["BLPOP", "list", time]);
        }
        server.cluster.settle();
        let info = server.call("INFO clients");
        assert!(info.contains("\r\nblocked_clients:3\r\n"), "{info}");
        assert!(info.contains("\r\nclients_in_timeout_table:2\r\n"), "{info}");
        server.wait_ms(6000);
        server.cluster.tick();
        server.cluster.settle();
        assert!(server.call("INFO clients").contains("\r\nclients_in_timeout_table:1\r\n"));
    });
}

/// The entries of the slow log, the oldest first: the address without its port, and the arguments.
fn slow_log(server: &mut Server) -> Vec<String> {
    let log = server.call("SLOWLOG GET -1");
    let mut entries: Vec<String> = Vec::new();
    let (_, shown) = log.split_once("\r\n").expect("an array");
    for entry in shown.split("*6\r\n").skip(1) {
        let texts: Vec<&str> =
            entry.split("\r\n").filter(|line| !line.starts_with(['$', '*', ':'])).collect();
        let (args, addr) = texts.split_at(texts.len() - 3);
        entries.push(format!("{} {}", addr[0].split(':').next().expect("an address"), args.join(" ")));
    }
    entries.reverse();
    entries
}

/// Commands of constant time are timed together: a bound that the mean of them reaches, all of them have reached.
#[test]
fn with_no_bound_the_slow_log_has_every_command_of_a_pipeline_and_of_a_script() {
    on_one_and_three_shards(|server| {
        server.expect(&[("CONFIG SET slowlog-log-slower-than 0", "+OK"), ("SLOWLOG RESET", "+OK")]);
        server.cluster.send(server.client, b"GET a\r\nGET d\r\nINCR a\r\nGET e\r\n");
        server.cluster.settle();
        server.cluster.received(server.client);
        let own = slow_log(server)[1].split(' ').next().expect("an address").to_string();
        let expected =
            ["SLOWLOG RESET", "GET a", "GET d", "INCR a", "GET e"].map(|args| format!("{own} {args}"));
        assert_eq!(slow_log(server)[..5], expected);

        server.call("SLOWLOG RESET");
        server.call_args(&["EVAL", "redis.call('SELECT',1) redis.call('SET',KEYS[1],'1')", "1", "a"]);
        let log = slow_log(server);
        assert_eq!(log[1..3], ["? SELECT 1", "? SET a 1"], "a script's calls are nobody's requests");
        assert!(log[3].starts_with(&format!("{own} EVAL ")), "{log:?}");
    });
}
