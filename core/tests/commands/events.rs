//! Keyspace events of each command, and how many changes it counts as: what Redis 7.0.15 shows with
//! `psubscribe __key*__:*` under `notify-keyspace-events KEAn`, and as `rdb_changes_since_last_save`.

use super::Server;
use shardis_core::shard::event::Event;
use shardis_core::shard::observe::CheckedOutWhat;
use std::sync::atomic::Ordering;

/// The events of a command, as `name key`, and how many changes it counted as. The events are collected in the same way
/// as those of checked-out keys.
pub(super) fn events(server: &mut Server, words: &str) -> (String, u64) {
    let changes = server.changes();
    server.cluster.workers[0].shard.observers.begin_checked_out(Vec::new());
    server.call(words);
    let events = server.cluster.workers[0].shard.observers.end_checked_out();
    // That a key is offered to those who wait for it is no event.
    let told = events.iter().filter(|told| told.what != CheckedOutWhat::Signalled).map(|told| {
        let CheckedOutWhat::Happened { event, client, .. } = told.what else { panic!("{words}: {told:?}") };
        assert_eq!(client == 0, event == Event::EXPIRED, "{words}: {told:?}");
        format!("{} {}", event.name(), String::from_utf8_lossy(&told.key))
    });
    (told.collect::<Vec<_>>().join(", "), server.changes() - changes)
}

/// Redis looks a stream that XREAD reads up twice, and what OBJECT asks for without a word.
#[test]
fn look_ups_in_vain_are_told_and_counted_as_in_redis() {
    let mut server = Server::new(1);
    server.call("CONFIG SET notify-keyspace-events KEm");
    for words in ["XADD s 1-1 f v", "XGROUP CREATE s g 0"] {
        server.call(words);
    }
    for (words, expected, hits, misses) in [
        ("GET no", "keymiss no", 0, 1),
        ("XREAD STREAMS no nix 0 $", "keymiss no, keymiss nix, keymiss no, keymiss nix", 0, 4),
        ("XREAD STREAMS s no 0 0", "keymiss no, keymiss no", 2, 2),
        ("XREADGROUP GROUP g c STREAMS s >", "xgroup-createconsumer s", 2, 0),
        ("XREADGROUP GROUP g c STREAMS no >", "keymiss no", 0, 1),
        ("XACK no g 1-1", "keymiss no", 0, 1),
        ("XAUTOCLAIM no g c 0 -1", "keymiss no", 0, 1),
        ("XACK s g 1-1", "", 1, 0),
        ("OBJECT ENCODING no", "", 0, 1),
        ("OBJECT FREQ no", "", 0, 1),
        ("OBJECT ENCODING s", "", 1, 0),
    ] {
        let counts = |server: &Server| {
            let stats = &server.cluster.workers[0].shard.stats;
            (stats.keyspace_hits.get(), stats.keyspace_misses.get())
        };
        let (hits_before, misses_before) = counts(&server);
        let told = events(&mut server, words).0;
        let (hits_after, misses_after) = counts(&server);
        let counted = (hits_after - hits_before, misses_after - misses_before);
        assert_eq!((told.as_str(), counted), (expected, (hits, misses)), "{words}");
    }
}

#[test]
fn each_command_has_the_same_events_and_changes_as_in_redis() {
    let mut server = Server::new(1);
    for (words, expected, changes) in [
        ("set a 1", "new a, set a", 1),
        ("set a 2 ex 100", "set a, expire a", 1),
        ("set a 2 keepttl", "set a", 1),
        ("setex a 10 x", "set a, expire a", 1),
        ("psetex a 10000 x", "set a, expire a", 1),
        ("setnx a 1", "", 0),
        ("setnx b 1", "new b, set b", 1),
        ("getset a q", "set a", 1),
        ("mset a 1 b 2", "set a, set b", 2),
        ("msetnx a 1 c 2", "", 0),
        ("msetnx d 1 e 2", "new d, set d, new e, set e", 2),
        ("append a x", "append a", 1),
        ("append z x", "new z, append z", 1),
        ("setrange a 1 q", "setrange a", 1),
        ("setrange y 2 q", "new y, setrange y", 1),
        ("incr n", "new n, incrby n", 1),
        ("incrby n 4", "incrby n", 1),
        ("decr n", "incrby n", 1),
        ("incrbyfloat n 1.5", "incrbyfloat n", 1),
        ("incr n", "", 0),
        ("getdel n", "del n", 1),
        ("set a 1 get", "set a", 1),
        ("set a 1 nx", "", 0),
        ("expire a 10", "expire a", 1),
        ("getex a persist", "persist a", 1),
        ("getex a", "", 0),
        ("getex a ex 10", "expire a", 1),
        ("persist a", "persist a", 1),
        ("persist a", "", 0),
        ("getex a pxat 1", "del a", 1),
        ("pexpireat b 1", "del b", 1),
        ("set a 1", "new a, set a", 1),
        ("rename a b", "new b, rename_from a, rename_to b", 1),
        ("rename b b", "", 0),
        ("set c 1", "new c, set c", 1),
        ("rename b c", "new c, rename_from b, rename_to c", 1),
        ("renamenx c f", "new f, rename_from c, rename_to f", 1),
        ("copy f g", "new g, copy_to g", 1),
        ("copy f g replace", "new g, copy_to g", 1),
        ("move f 1", "new f, move_from f, move_to f", 1),
        ("del g none", "del g", 1),
        ("unlink g", "", 0),
        ("swapdb 0 1", "", 1),
        ("swapdb 0 0", "", 1),
        ("flushdb", "", 1),
        ("hset h a 1 b 2", "new h, hset h", 2),
        ("hset h a 1", "hset h", 1),
        ("hmset h a 1 a 2", "hset h", 2),
        ("hsetnx h a 1", "", 0),
        ("hsetnx h c 1", "hset h", 1),
        ("hincrby h n 1", "hincrby h", 1),
        ("hincrbyfloat h n 1", "hincrbyfloat h", 1),
        ("hincrby h n x", "", 0),
        ("hincrbyfloat none n inf", "", 0),
        ("hdel h none", "", 0),
        ("hdel h a b none", "hdel h", 2),
        ("hdel h c n", "hdel h, del h", 2),
        ("hincrbyfloat h n 1", "new h, hincrbyfloat h", 1),
    ] {
        assert_eq!(events(&mut server, words), (expected.into(), changes), "{words}");
    }
}

#[test]
fn each_list_command_has_the_same_events_and_changes_as_in_redis() {
    let mut server = Server::new(1);
    for (words, expected, changes) in [
        ("rpush l a b c", "new l, rpush l", 3),
        ("lpush l z", "lpush l", 1),
        ("rpushx l d", "rpush l", 1),
        ("lpushx nokey d", "", 0),
        ("linsert l before b x", "linsert l", 1),
        ("linsert l before nosuch x", "", 0),
        ("lset l 0 y", "lset l", 1),
        ("lset l 99 y", "", 0),
        ("lrem l 0 nosuch", "", 0),
        ("lrem l 1 x", "lrem l", 1),
        ("ltrim l 0 -1", "ltrim l", 0),
        ("ltrim l 1 -1", "ltrim l", 1),
        ("lpop l", "lpop l", 1),
        ("rpop l 0", "", 0),
        ("rpop l 1", "rpop l", 1),
        ("lpop nokey", "", 0),
        ("lpop l 99", "lpop l, del l", 2),
        ("rpush l a b c d e f", "new l, rpush l", 6),
        ("lmove l l left right", "rpush l, lpop l", 1),
        ("lmove l m left left", "new m, lpush m, lpop l", 1),
        ("rpoplpush l m", "lpush m, rpop l", 1),
        ("lmove m m right left", "lpush m, rpop m", 1),
        ("lmove nokey m right left", "", 0),
        ("lmpop 2 nokey l left count 2", "lpop l", 2),
        ("lmpop 1 nokey left", "", 0),
        ("blpop nokey l 0", "lpop l", 1),
        ("brpop l 0", "rpop l, del l", 1),
        ("rpush l a", "new l, rpush l", 1),
        ("lmove l l left left", "lpush l, lpop l", 1),
        ("blmove l m left right 0", "rpush m, lpop l, del l", 1),
        ("rpush l a", "new l, rpush l", 1),
        ("brpoplpush l m 0", "lpush m, rpop l, del l", 1),
        ("blmpop 0 1 m left count 9", "lpop m, del m", 4),
        ("rpush l a a", "new l, rpush l", 2),
        ("lrem l 0 a", "lrem l, del l", 2),
        ("rpush l a b", "new l, rpush l", 2),
        ("ltrim l 5 9", "ltrim l, del l", 2),
    ] {
        assert_eq!(events(&mut server, words), (expected.into(), changes), "{words}");
    }
}

#[test]
fn each_set_command_has_the_same_events_and_changes_as_in_redis() {
    let mut server = Server::new(1);
    for (words, expected, changes) in [
        ("sadd s 1 2 3", "new s, sadd s", 3),
        ("sadd s 1", "", 0),
        ("sadd s a", "sadd s", 1),
        ("srem s 9", "", 0),
        ("srem s 1 2 9", "srem s", 2),
        ("srem s 3 a", "srem s, del s", 2),
        ("sadd s 1 2 3", "new s, sadd s", 3),
        ("sadd t 4", "new t, sadd t", 1),
        ("smove s t 1", "srem s, sadd t", 2),
        ("smove s t 9", "", 0),
        ("sadd s 4", "sadd s", 1),
        ("smove s t 4", "srem s", 1),
        ("smove s s 2", "", 0),
        ("smove s new 2", "srem s, new new, sadd new", 2),
        ("smove s new 3", "srem s, del s, sadd new", 2),
        ("sadd s 1", "new s, sadd s", 1),
        ("spop s", "spop s, del s", 1),
        ("sadd s 1 2 3 4 5", "new s, sadd s", 5),
        ("spop s", "spop s", 1),
        ("spop s 0", "", 0),
        ("spop s 2", "spop s", 2),
        ("spop s 10", "spop s, del s", 2),
        ("spop s 10", "", 0),
        ("sadd a 1 2 3", "new a, sadd a", 3),
        ("sadd b 2 3 4", "new b, sadd b", 3),
        ("set x v", "new x, set x", 1),
        ("sinterstore d a b", "new d, sinterstore d", 1),
        ("sinterstore d a none", "del d", 1),
        ("sinterstore d a none", "", 0),
        ("sinterstore a a b", "sinterstore a", 1),
        ("sinterstore x a b", "sinterstore x", 1),
        ("sunionstore d a b", "new d, sunionstore d", 1),
        ("sunionstore d none", "del d", 1),
        ("sdiffstore d b a", "new d, sdiffstore d", 1),
        ("sdiffstore d a a", "del d", 1),
        ("sdiffstore d a a", "", 0),
        ("smembers b", "", 0),
        ("srandmember b 2", "", 0),
    ] {
        assert_eq!(events(&mut server, words), (expected.into(), changes), "{words}");
    }
}

#[test]
fn each_sorted_set_command_has_the_same_events_and_changes_as_in_redis() {
    let mut server = Server::new(1);
    for (words, expected, changes) in [
        ("zadd z 1 a 2 b 3 c", "new z, zadd z", 3),
        ("zadd z 1 a", "", 0),
        ("zadd z 2 a 4 d", "zadd z", 2),
        ("zadd z xx 9 x", "", 0),
        ("zadd none xx 9 x", "", 0),
        ("zadd z nx 9 a", "", 0),
        ("zadd z gt 1 a", "", 0),
        ("zadd z incr 1 a", "zincr z", 1),
        ("zincrby z 0 a", "", 0),
        ("zincrby z 2 a", "zincr z", 1),
        ("zrem z x", "", 0),
        ("zrem z a x", "zrem z", 1),
        ("zrem none a", "", 0),
        ("zremrangebyrank z 0 0", "zremrangebyrank z", 1),
        ("zremrangebyrank z 5 9", "", 0),
        ("zremrangebyscore z 4 4", "zremrangebyscore z", 1),
        ("zremrangebyscore z 9 9", "", 0),
        ("zremrangebylex z [c [c", "zremrangebylex z, del z", 1),
        ("zadd z 1 a 2 b 3 c 4 d", "new z, zadd z", 4),
        ("zpopmin z", "zpopmin z", 1),
        ("zpopmax z 2", "zpopmax z", 2),
        ("zpopmin z 0", "", 0),
        ("zpopmin z 9", "zpopmin z, del z", 1),
        ("zpopmin z", "", 0),
        ("zadd z 1 a 2 b 3 c 4 d", "new z, zadd z", 4),
        ("zmpop 2 none z min count 2", "zpopmin z", 2),
        ("zmpop 1 z max count 9", "zpopmax z, del z", 2),
        ("zmpop 1 z max", "", 0),
        ("zadd z 1 a 2 b 3 c 4 d", "new z, zadd z", 4),
        ("bzpopmin none z 0", "zpopmin z", 1),
        ("bzmpop 0 1 z max count 2", "zpopmax z", 2),
        ("bzpopmax z 0", "zpopmax z, del z", 1),
        ("zadd z 1 a 2 b", "new z, zadd z", 2),
        ("zadd y 1 a", "new y, zadd y", 1),
        ("set x v", "new x, set x", 1),
        ("zrangestore d z 0 -1", "new d, zrangestore d", 1),
        ("zrangestore d z 5 9", "del d", 1),
        ("zrangestore d z 5 9", "", 0),
        ("zrangestore z z 0 -1", "zrangestore z", 1),
        ("zunionstore d 2 z y", "new d, zunionstore d", 1),
        ("zunionstore x 2 z y", "zunionstore x", 1),
        ("zinterstore d 2 z y", "zinterstore d", 1),
        ("zinterstore d 2 z none", "del d", 1),
        ("zinterstore d 2 z none", "", 0),
        ("zdiffstore d 2 z y", "new d, zdiffstore d", 1),
        ("zdiffstore d 2 z z", "del d", 1),
        ("zrange z 0 -1", "", 0),
        ("zrandmember z 2", "", 0),
        ("zrem z a b", "zrem z, del z", 2),
    ] {
        assert_eq!(events(&mut server, words), (expected.into(), changes), "{words}");
    }
}

#[test]
fn a_command_that_overwrites_an_expired_key_removes_it_first() {
    for (words, expected, changes) in [
        ("set a 2", "expired a, new a, set a", 1),
        ("set a 2 keepttl", "expired a, new a, set a", 1),
        ("setex a 100 2", "expired a, new a, set a, expire a", 1),
        ("setnx a 2", "expired a, new a, set a", 1),
        ("getset a 2", "expired a, new a, set a", 1),
        ("mset a 2 b 3", "expired a, new a, set a, set b", 2),
        ("msetnx a 2", "expired a, new a, set a", 1),
        ("rename b a", "expired a, new a, rename_from b, rename_to a", 1),
        ("renamenx b a", "expired a, new a, rename_from b, rename_to a", 1),
        ("copy b a replace", "expired a, new a, copy_to a", 1),
        ("append a z", "expired a, new a, append a", 1),
        ("incr a", "expired a, new a, incrby a", 1),
        ("del a", "expired a", 0),
        ("persist a", "expired a", 0),
    ] {
        let mut server = Server::new(1);
        server.cluster.workers[0].globals.active_expire.store(false, Ordering::Relaxed);
        server.expect(&[("set a 1 px 10", "+OK"), ("set b 1", "+OK")]);
        server.wait_ms(11);
        assert_eq!(events(&mut server, words), (expected.into(), changes), "{words}");
        assert_eq!(server.sum(|stats| stats.expired_keys.get()), 1, "{words}");
    }
}

#[test]
fn classes_are_those_of_the_letters_in_notify_keyspace_events() {
    let events =
        [Event::DEL, Event::SET, Event::SADD, Event::EXPIRED, Event::NEW, Event::LOADED, Event::KEY_MISS];
    let letters: Vec<u8> = events.into_iter().filter_map(|event| event.class().letter()).collect();
    assert_eq!(letters, b"g$sxnm");
}
