//! What a client may do counts when its command runs: also one that has waited for locks.

use super::Server;

const DENIED: &str = "-NOPERM this user has no permissions to run the 'set' command\r\n";
const DENIED_IN_EXEC: &str = "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC \
                              call. This command is no longer allowed for the following reason: no permission to \
                              execute the command or subcommand\r\n";

/// A server with a user `u`, who is logged in as a client on this shard; and a client that may do everything.
fn with_user(shard_count: usize, shard: usize) -> (Server, usize, usize) {
    let mut server = Server::new(shard_count);
    server.expect(&[("ACL SETUSER u on nopass ~* &* +@all", "+OK")]);
    let (client, admin) = (server.join(shard), server.join(0));
    assert_eq!(server.call_as(client, "AUTH u any"), "+OK\r\n");
    (server, client, admin)
}

fn request(server: &mut Server, client: usize, words: &str) {
    server.cluster.request(client, &words.split(' ').collect::<Vec<_>>());
}

/// Runs requests of a client while a program holds the key `b`, which is on shard 0, and changes rights before it ends. Returns the
/// replies.
fn run_behind_program(
    server: &mut Server,
    (client, admin): (usize, usize),
    requests: &[&str],
    change: &str,
) -> String {
    let held = server.cluster.suspend_program(0, &["b"], true).expect("the key is free");
    requests.iter().for_each(|words| request(server, client, words));
    server.cluster.hand_over(client);
    server.cluster.settle();
    assert!(server.call_as(admin, change).starts_with([':', '+']), "{change}");
    server.cluster.end_program(0, held);
    let replies = server.heard_by(client);
    assert!(server.cluster.is_at_rest(), "{requests:?}");
    replies
}

#[test]
fn a_command_that_waits_for_a_lock_is_refused_when_its_user_has_lost_the_right() {
    for (shard_count, shard) in [(1, 0), (3, 0), (3, 2)] {
        let (mut server, client, admin) = with_user(shard_count, shard);
        let who = (client, admin);
        let replies = run_behind_program(&mut server, who, &["SET b 1"], "ACL SETUSER u -set");
        assert_eq!(replies, DENIED, "{shard_count}, {shard}");
        assert_eq!(server.call_as(admin, "GET b"), "$-1\r\n");
        assert!(server.call_as(admin, "ACL LOG").contains("\r\nset\r\n"));
        let stats = server.call_as(admin, "INFO commandstats");
        assert!(stats.contains("cmdstat_set:calls=0,") && stats.contains("rejected_calls=1,"), "{stats}");

        // What others may do makes no difference.
        let replies = run_behind_program(&mut server, who, &["INCR b"], "ACL SETUSER v -incr");
        assert_eq!(replies, ":1\r\n");
        run_behind_program(&mut server, who, &["INCR b"], "ACL DELUSER u");
        assert_eq!(server.call_as(admin, "GET b"), "$1\r\n1\r\n", "{shard_count}, {shard}");
    }
}

/// Who it is when the command runs may be somebody else: what counts is who has called it.
#[test]
fn a_client_that_has_become_another_user_is_judged_as_who_it_was() {
    let (mut server, client, admin) = with_user(3, 2);
    server.call_as(admin, "ACL SETUSER v on nopass +ping");
    let replies =
        run_behind_program(&mut server, (client, admin), &["INCR b", "AUTH v any"], "ACL SETUSER u -set");
    assert_eq!(replies, ":1\r\n+OK\r\n");
}

#[test]
fn an_exec_that_waits_for_its_locks_is_judged_again() {
    for (shard_count, shard) in [(1, 0), (3, 0), (3, 2)] {
        for other in ["{b}2", "a"] {
            let (mut server, client, admin) = with_user(shard_count, shard);
            let set = format!("SET {other} 1");
            let requests = ["MULTI", "INCR b", &set, "GET b", "EXEC"];
            let replies = run_behind_program(&mut server, (client, admin), &requests, "ACL SETUSER u -set");
            let expected =
                format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:1\r\n{DENIED_IN_EXEC}$1\r\n1\r\n");
            assert_eq!(replies, expected, "{shard_count}, {shard}, {other}");
            assert_eq!(server.call_as(admin, &format!("EXISTS {other}")), ":0\r\n");
        }
    }
}

#[test]
fn a_command_over_several_shards_is_judged_again_when_it_has_its_locks() {
    for shard in 0..3 {
        let (mut server, client, admin) = with_user(3, shard);
        let who = (client, admin);
        let denied = DENIED.replace("'set'", "'mset'");
        let replies = run_behind_program(&mut server, who, &["MSET a 1 b 1"], "ACL SETUSER u -mset");
        assert_eq!(replies, denied, "{shard}");
        assert_eq!(server.call_as(admin, "EXISTS a b"), ":0\r\n");

        // A coalesced pipeline.
        server.call_as(admin, "ACL SETUSER u +@all");
        let requests = ["MSET a 1 b 1", "MGET a b", "MULTI", "INCR a", "SET c 1", "EXEC"];
        let replies = run_behind_program(&mut server, who, &requests, "ACL SETUSER u -mset -set");
        let expected =
            format!("{denied}*2\r\n$-1\r\n$-1\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n{DENIED_IN_EXEC}");
        assert_eq!(replies, expected, "{shard}");
        server.call_as(admin, "ACL SETUSER u +@all");
        let replies = run_behind_program(&mut server, who, &["MSET a 5 b 5"], "ACL SETUSER v +@all");
        assert_eq!(replies, "+OK\r\n", "nothing has changed for it");
    }
}

/// It starts anew because the users have changed. The keys that its client watches are watched all the same.
#[test]
fn a_watched_key_may_change_up_to_the_lock_point_of_an_exec_that_starts_anew() {
    for changes in [false, true] {
        let (mut server, client, admin) = with_user(3, 1);
        let held = server.cluster.suspend_program(0, &["b"], true).expect("the key is free");
        for words in ["WATCH a", "MULTI", "SET a 1", "SET b 1", "EXEC"] {
            request(&mut server, client, words);
        }
        server.cluster.settle();
        server.call_as(admin, "ACL SETUSER v on");
        // It is back at home, on shard 1, and does not get away from there.
        server.cluster.hold(1, 0);
        server.cluster.end_program(0, held);
        server.cluster.settle();
        if changes {
            let other = server.join(2);
            assert_eq!(server.call_as(other, "SET a 2"), "+OK\r\n");
        }
        server.cluster.release(1, 0);
        let end = if changes { "*-1\r\n" } else { "*2\r\n+OK\r\n+OK\r\n" };
        let replies = server.heard_by(client);
        assert_eq!(replies, format!("+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n{end}"));
        assert!(server.cluster.is_at_rest());
    }
}
