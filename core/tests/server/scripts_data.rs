//! Scripts that read and change data of many keys as one: whoever looks on sees none of it half done.

use crate::harness::Server;
use crate::scripts::{FOUR_SHARDS, NONE, connect, crowd, keys, script};
use redis::cmd;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// KEYS: the board. ARGV: player, points. Also counts by day and country, in keys that it derives.
const SCORE: &str = r#"
local board, player, points = KEYS[1], ARGV[1], tonumber(ARGV[2])
local total = redis.call('ZINCRBY', board, points, player)
local country = redis.call('HGET', 'player:' .. player, 'country')
if country then redis.call('ZINCRBY', board .. ':' .. country, points, player) end
redis.call('HINCRBY', 'player:' .. player, 'games', 1)
return total
"#;

/// KEYS: the board. ARGV: player, how many on each side. Returns rank, name, points and games of each.
const NEIGHBOURS: &str = r#"
local rank = redis.call('ZREVRANK', KEYS[1], ARGV[1])
if not rank then return {} end
local from = math.max(0, rank - ARGV[2])
local found = redis.call('ZREVRANGE', KEYS[1], from, rank + ARGV[2], 'WITHSCORES')
local reply = {}
for i = 1, #found, 2 do
  local games = redis.call('HGET', 'player:' .. found[i], 'games')
  reply[#reply + 1] = { from + (i - 1) / 2, found[i], tonumber(found[i + 1]), tonumber(games) }
end
return reply
"#;

#[test]
fn a_leaderboard_shows_neighbours_as_of_one_moment() {
    const PLAYERS: usize = 20;
    const GAMES: usize = 100;
    /// Each game of a player brings as many points.
    const POINTS: usize = 5;
    let server = Server::start(FOUR_SHARDS);
    let mut connection = connect(&server);
    for player in 0..PLAYERS {
        let mut set = cmd("HSET");
        set.arg(format!("player:p{player}")).arg("country").arg(["de", "fr", "pl"][player % 3]);
        let _: i64 = set.query(&mut connection).expect("HSET");
    }
    let playing = AtomicUsize::new(2);
    crowd(&server, 4, |at, connection| {
        if at < 2 {
            for n in 0..GAMES {
                let player = format!("p{}", (n * n + at * 3) % PLAYERS);
                let total: usize = script(connection, SCORE, &["board"], (player, POINTS));
                assert_eq!(total % POINTS, 0);
            }
            playing.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let mut n = 0;
        while playing.load(Ordering::Relaxed) > 0 {
            n += 1;
            let player = format!("p{}", n % PLAYERS);
            let found: Vec<(usize, String, usize, usize)> =
                script(connection, NEIGHBOURS, &["board"], (&player, 2));
            if found.is_empty() {
                continue;
            }
            assert!(found.iter().any(|(_, name, ..)| *name == player), "{found:?}");
            assert!(found.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0 && pair[0].2 >= pair[1].2));
            // The games stand in other keys, on other shards.
            assert!(found.iter().all(|&(_, _, points, games)| points == games * POINTS), "{found:?}");
        }
    });

    let board: BTreeMap<String, usize> =
        cmd("ZRANGE").arg("board").arg(0).arg(-1).arg("WITHSCORES").query(&mut connection).expect("ZRANGE");
    assert_eq!(board.values().sum::<usize>(), 2 * GAMES * POINTS);
    let mut by_country = BTreeMap::new();
    for country in ["de", "fr", "pl"] {
        let part: BTreeMap<String, usize> = cmd("ZRANGE")
            .arg(format!("board:{country}"))
            .arg(0)
            .arg(-1)
            .arg("WITHSCORES")
            .query(&mut connection)
            .expect("ZRANGE");
        by_country.extend(part);
    }
    assert_eq!(by_country, board);
}

/// ARGV: a pattern. Returns how many keys it deleted.
const DELETE_BY_KEYS: &str = r#"
local keys = redis.call('KEYS', ARGV[1])
for i = 1, #keys, 5000 do redis.call('DEL', unpack(keys, i, math.min(i + 4999, #keys))) end
return #keys
"#;

const DELETE_BY_SCAN: &str = r#"
local cursor, count = '0', 0
repeat
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[1], 'COUNT', 50)
  cursor = page[1]
  for _, key in ipairs(page[2]) do count = count + redis.call('DEL', key) end
until cursor == '0'
return count
"#;

#[test]
fn bulk_deletion_by_pattern_is_all_or_nothing_for_others() {
    const ROUNDS: usize = 40;
    let server = Server::start(FOUR_SHARDS);
    let mut connection = connect(&server);
    let kept: Vec<String> = (0..30).map(|n| format!("keep:{n}")).collect();
    for key in &kept {
        let _: () = cmd("SET").arg(key).arg(1).query(&mut connection).expect("SET");
    }
    let is_over = AtomicBool::new(false);
    let counts = crowd(&server, 4, |at, connection| {
        if at == 0 {
            // All eight or none are there, at any moment.
            let mut set = cmd("MSET");
            (0..8).for_each(|n| {
                set.arg(format!("cache:{n}")).arg(n);
            });
            while !is_over.load(Ordering::Relaxed) {
                let _: () = set.query(connection).expect("MSET");
            }
            return 0;
        }
        if at == 1 {
            while !is_over.load(Ordering::Relaxed) {
                let mut get = cmd("MGET");
                (0..8).for_each(|n| {
                    get.arg(format!("cache:{n}"));
                });
                let found: Vec<Option<usize>> = get.query(connection).expect("MGET");
                let count = found.iter().flatten().count();
                assert!(count == 0 || count == 8, "{found:?}");
            }
            return 0;
        }
        let source = [DELETE_BY_KEYS, DELETE_BY_SCAN][at - 2];
        let mut deleted = 0;
        for _ in 0..ROUNDS {
            let count: usize = script(connection, source, &[], "cache:*");
            assert!(count == 0 || count == 8, "{count} of 8");
            deleted += count;
        }
        if at == 2 {
            is_over.store(true, Ordering::Relaxed);
        }
        deleted
    });

    assert!(counts.iter().sum::<usize>() > 0, "something was deleted");
    let _: usize = script(&mut connection, DELETE_BY_KEYS, &[], "cache:*");
    let mut expected = kept;
    expected.sort();
    assert_eq!(keys(&mut connection, "*"), expected);
}

/// KEYS: the session. ARGV: a new token, the time, how many sessions a user may have. The user's name stands in the session.
/// Returns the name, or nil if the session is not there any more.
const REFRESH: &str = r#"
local data = redis.call('HGETALL', KEYS[1])
if #data == 0 then return false end
local session = {}
for i = 1, #data, 2 do session[data[i]] = data[i + 1] end
local index, new = 'user:' .. session.user .. ':sessions', 'session:' .. ARGV[1]
redis.call('RENAME', KEYS[1], new)
redis.call('HINCRBY', new, 'refreshed', 1)
redis.call('EXPIRE', new, 3600)
redis.call('ZREM', index, string.sub(KEYS[1], 9))
redis.call('ZADD', index, ARGV[2], ARGV[1])
local too_many = redis.call('ZCARD', index) - tonumber(ARGV[3])
if too_many > 0 then
  for _, token in ipairs(redis.call('ZRANGE', index, 0, too_many - 1)) do redis.call('DEL', 'session:' .. token) end
  redis.call('ZREMRANGEBYRANK', index, 0, too_many - 1)
end
return session.user
"#;

/// ARGV: user, token, time.
const LOGIN: &str = r#"
redis.call('HSET', 'session:' .. ARGV[2], 'user', ARGV[1], 'refreshed', 0)
redis.call('ZADD', 'user:' .. ARGV[1] .. ':sessions', ARGV[3], ARGV[2])
return redis.status_reply('OK')
"#;

#[test]
fn refreshed_sessions_and_the_index_of_each_user_agree() {
    const USERS: usize = 4;
    const CLIENTS: usize = 4;
    const TURNS: usize = 60;
    const SESSIONS_MAX: usize = 3;
    let server = Server::start(FOUR_SHARDS);
    let clock = AtomicUsize::new(0);
    let now = || clock.fetch_add(1, Ordering::Relaxed);
    crowd(&server, CLIENTS, |at, connection| {
        let mut token = String::new();
        for turn in 0..TURNS {
            if token.is_empty() {
                token = format!("{at}.{turn}.new");
                let user = format!("u{}", (at + turn) % USERS);
                let _: () = script(connection, LOGIN, &[], (user, &token, now()));
            }
            let session = format!("session:{token}");
            let new = format!("{at}.{turn}");
            let user: Option<String> =
                script(connection, REFRESH, &[session.as_str()], (&new, now(), SESSIONS_MAX));
            // One that was refreshed is gone under its old name, whoever asks.
            let again: Option<String> =
                script(connection, REFRESH, &[session.as_str()], ("nobody", now(), SESSIONS_MAX));
            assert_eq!(again, None);
            token = if user.is_some() && turn % 8 != 7 { new } else { String::new() };
        }
    });

    let mut connection = connect(&server);
    let mut indexed = Vec::new();
    for user in 0..USERS {
        let tokens: Vec<String> = cmd("ZRANGE")
            .arg(format!("user:u{user}:sessions"))
            .arg(0)
            .arg(-1)
            .query(&mut connection)
            .expect("ZRANGE");
        assert!(tokens.len() <= SESSIONS_MAX + CLIENTS, "{tokens:?}");
        for token in tokens {
            let session = format!("session:{token}");
            let owner: Option<String> =
                cmd("HGET").arg(&session).arg("user").query(&mut connection).expect("HGET");
            assert_eq!(owner, Some(format!("u{user}")), "{session}");
            indexed.push(session);
        }
    }
    indexed.sort();
    assert_eq!(keys(&mut connection, "session:*"), indexed, "no session is in no index");
}

/// ARGV: a cursor, how many at once. Turns strings `v1:<id>` into hashes `v2:<id>`, a page at a time. Returns the next cursor
/// and how many it turned.
const MIGRATE_PAGE: &str = r#"
local page = redis.call('SCAN', ARGV[1], 'MATCH', 'v1:*', 'COUNT', ARGV[2])
local turned = 0
for _, old in ipairs(page[2]) do
  local value = redis.call('GET', old)
  if value then
    local new = 'v2:' .. string.sub(old, 4)
    local record = cjson.decode(value)
    redis.call('HSET', new, 'n', record.n, 'name', record.name)
    redis.call('DEL', old)
    redis.call('INCR', 'migrated')
    turned = turned + 1
  end
end
return { page[1], turned }
"#;

/// KEYS: an ID. Adds one to the record, in whichever form it is. Returns its number.
const INCREMENT: &str = r#"
local old, new = 'v1:' .. KEYS[1], 'v2:' .. KEYS[1]
local value = redis.call('GET', old)
if value then
  if redis.call('EXISTS', new) == 1 then return redis.error_reply('TWICE ' .. KEYS[1]) end
  local record = cjson.decode(value)
  record.n = record.n + 1
  redis.call('SET', old, cjson.encode(record))
  return record.n
end
if redis.call('EXISTS', new) == 0 then return redis.error_reply('LOST ' .. KEYS[1]) end
return redis.call('HINCRBY', new, 'n', 1)
"#;

#[test]
fn a_migration_by_scan_loses_nothing_while_others_write() {
    const RECORDS: usize = 400;
    const WRITES: usize = 300;
    let server = Server::start(FOUR_SHARDS);
    let mut connection = connect(&server);
    for id in 0..RECORDS {
        let record = format!(r#"{{"n":0,"name":"record {id}"}}"#);
        let _: () = cmd("SET").arg(format!("v1:{id}")).arg(record).query(&mut connection).expect("SET");
    }
    let turned = crowd(&server, 4, |at, connection| {
        if at < 2 {
            for n in 0..WRITES {
                let id = ((n * 13 + at * 7) % RECORDS).to_string();
                let count: usize = script(connection, INCREMENT, &[id.as_str()], &NONE);
                assert!(count > 0);
            }
            return 0;
        }
        // Two migrations at once are in each other's way, and yet turn every record once.
        let mut turned = 0;
        let mut cursor = "0".to_string();
        loop {
            let (next, count): (String, usize) = script(connection, MIGRATE_PAGE, &[], (&cursor, 20));
            turned += count;
            cursor = next;
            if cursor == "0" {
                return turned;
            }
        }
    });

    assert_eq!(turned.iter().sum::<usize>(), RECORDS);
    let migrated: usize = cmd("GET").arg("migrated").query(&mut connection).expect("GET");
    assert_eq!(migrated, RECORDS);
    assert!(keys(&mut connection, "v1:*").is_empty());
    let mut written = 0;
    for id in 0..RECORDS {
        let (n, name): (usize, String) =
            cmd("HMGET").arg(format!("v2:{id}")).arg(&["n", "name"]).query(&mut connection).expect("HMGET");
        assert_eq!(name, format!("record {id}"));
        written += n;
    }
    assert_eq!(written, 2 * WRITES);
}
