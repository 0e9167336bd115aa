//! EXPIRE and related commands: conditions, units, and the exact millisecond in which a key expires.

use super::{NULL, on_one_and_three_shards};

#[test]
fn expire_options_compare_with_the_old_expiry() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("EXPIRE none 10", ":0"),
            ("SET a b", "+OK"),
            ("EXPIRE a 10 XX", ":0"),
            ("EXPIRE a 10 GT", ":0"),
            ("EXPIRE a 100 LT", ":1"),
            ("EXPIRE a 10 NX", ":0"),
            ("EXPIRE a 100 GT", ":0"),
            ("EXPIRE a 100 LT", ":0"),
            ("EXPIRE a 200 XX GT gt", ":1"),
            ("TTL a", ":200"),
            ("PEXPIRE a 50000 XX LT", ":1"),
            ("TTL a", ":50"),
            ("EXPIRE a 10 NX XX", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
            ("EXPIRE a 10 LT NX", "-ERR NX and XX, GT or LT options at the same time are not compatible"),
            ("EXPIRE a 10 GT LT", "-ERR GT and LT options at the same time are not compatible"),
            ("EXPIRE a x foo", "-ERR Unsupported option foo"),
            ("EXPIRE a x", "-ERR value is not an integer or out of range"),
            ("EXPIRE a 9223372036854775807", "-ERR invalid expire time in 'expire' command"),
            ("EXPIRE a -9223372036854775807", "-ERR invalid expire time in 'expire' command"),
            ("PEXPIRE a 9223372036854775807", "-ERR invalid expire time in 'pexpire' command"),
            ("EXPIREAT a 9223372036854775807", "-ERR invalid expire time in 'expireat' command"),
            ("EXPIRE none x", "-ERR value is not an integer or out of range"),
            ("TTL a", ":50"),
        ]);
    });
}

#[test]
fn an_expiry_in_the_past_deletes_the_key() {
    on_one_and_three_shards(|server| {
        for words in ["EXPIRE a -1", "EXPIRE a 0", "PEXPIRE a 0", "EXPIREAT a 1", "PEXPIREAT a 1700000000000"]
        {
            server.expect(&[("SET a b", "+OK"), (words, ":1"), ("EXISTS a", ":0"), ("DBSIZE", ":0")]);
        }
        assert_eq!(server.sum(|stats| stats.expired_keys.get()), 0, "deleted, not expired");
    });
}

#[test]
fn ttl_rounds_to_seconds_and_pttl_is_exact() {
    on_one_and_three_shards(|server| {
        server.expect(&[
            ("TTL a", ":-2"),
            ("PTTL a", ":-2"),
            ("EXPIRETIME a", ":-2"),
            ("PEXPIRETIME a", ":-2"),
            ("SET a b", "+OK"),
            ("TTL a", ":-1"),
            ("PEXPIRETIME a", ":-1"),
            ("PEXPIRE a 1499", ":1"),
            ("TTL a", ":1"),
            ("PTTL a", ":1499"),
            ("EXPIRETIME a", ":1700000001"),
            ("PEXPIRETIME a", ":1700000001499"),
            ("PEXPIRE a 1500", ":1"),
            ("TTL a", ":2"),
            ("PEXPIREAT a 9223372036854775807", ":1"),
            ("EXPIRETIME a", ":9223372036854776"),
            ("PERSIST a", ":1"),
            ("PERSIST a", ":0"),
            ("PERSIST none", ":0"),
            ("TTL a", ":-1"),
        ]);
    });
}

#[test]
fn a_key_is_alive_through_the_millisecond_of_its_expiry() {
    on_one_and_three_shards(|server| {
        server.expect(&[("SET a b PX 100", "+OK"), ("SET c d PX 100", "+OK")]);
        server.wait_ms(100);
        server.expect(&[("PTTL a", ":0"), ("GET a", "$1\r\nb")]);
        server.wait_ms(1);
        server.expect(&[("GET a", NULL), ("TTL c", ":-2"), ("DBSIZE", ":0")]);
        assert_eq!(server.sum(|stats| stats.expired_keys.get()), 2);
    });
}
