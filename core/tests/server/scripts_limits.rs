//! Locks, limits and reservations by scripts: what is granted twice or too often would be seen here.

use crate::harness::Server;
use crate::scripts::{FOUR_SHARDS, NONE, connect, crowd, keys, script, try_script};
use redis::{RedisResult, cmd};
use std::sync::atomic::{AtomicBool, Ordering};

/// KEYS: the lock. ARGV: the client's token, its time to live. Returns 1 if it has the lock, or 0 if it stands in line.
const ACQUIRE: &str = r#"
local queue, ticket = KEYS[1] .. ':queue', KEYS[1] .. ':ticket:' .. ARGV[1]
if redis.call('EXISTS', ticket) == 0 then
  redis.call('SET', ticket, redis.call('INCR', KEYS[1] .. ':tickets'))
  redis.call('RPUSH', queue, ARGV[1])
end
if redis.call('LINDEX', queue, 0) ~= ARGV[1] then return 0 end
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('LPOP', queue)
redis.call('RPUSH', KEYS[1] .. ':order', redis.call('GETDEL', ticket))
return 1
"#;

const RELEASE: &str = r#"
if redis.call("get",KEYS[1]) == ARGV[1] then
    return redis.call("del",KEYS[1])
else
    return 0
end
"#;

#[test]
fn a_fair_lock_is_held_by_one_at_a_time_in_the_order_of_asking() {
    const CLIENTS: usize = 5;
    const TURNS: usize = 15;
    let server = Server::start(FOUR_SHARDS);
    let is_held = AtomicBool::new(false);
    crowd(&server, CLIENTS, |at, connection| {
        for turn in 0..TURNS {
            let token = format!("{at}.{turn}");
            while script::<i64>(connection, ACQUIRE, &["lock:door"], (&token, 600_000)) == 0 {}
            assert!(!is_held.swap(true, Ordering::SeqCst), "two hold the lock");
            // Only the lock makes this add up.
            let count: Option<usize> = cmd("GET").arg("count").query(connection).expect("GET");
            let _: () = cmd("SET").arg("count").arg(count.unwrap_or(0) + 1).query(connection).expect("SET");
            is_held.store(false, Ordering::SeqCst);
            let stolen: i64 = script(connection, RELEASE, &["lock:door"], "somebody else");
            assert_eq!(stolen, 0);
            let released: i64 = script(connection, RELEASE, &["lock:door"], &token);
            assert_eq!(released, 1);
        }
    });

    let mut connection = connect(&server);
    let count: usize = cmd("GET").arg("count").query(&mut connection).expect("GET");
    assert_eq!(count, CLIENTS * TURNS);
    let order: Vec<usize> =
        cmd("LRANGE").arg("lock:door:order").arg(0).arg(-1).query(&mut connection).expect("LRANGE");
    assert_eq!(order, (1..=CLIENTS * TURNS).collect::<Vec<_>>(), "the tickets are served in order");
    assert_eq!(keys(&mut connection, "lock:*"), ["lock:door:order", "lock:door:tickets"]);
}

/// KEYS: the log, its counter. ARGV: now, window, limit. Returns whether it is allowed, and how many more are.
const SLIDING_WINDOW: &str = r#"
local key, now, window, limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
local used = redis.call('ZCARD', key)
if used >= limit then return { 0, 0 } end
redis.call('ZADD', key, now, now .. '-' .. redis.call('INCR', KEYS[2]))
redis.call('PEXPIRE', key, 600000)
return { 1, limit - used - 1 }
"#;

#[test]
fn a_sliding_window_lets_no_more_through_than_its_limit() {
    const CLIENTS: usize = 4;
    const WINDOW: usize = 10;
    const LIMIT: usize = 25;
    const END: usize = 60;
    let server = Server::start(FOUR_SHARDS);
    // Each moment of an artificial clock has more requests than a whole window allows.
    let allowed = crowd(&server, CLIENTS, |_, connection| {
        let mut allowed = vec![0; END];
        let mut now = 0;
        while now < END {
            for _ in 0..3 {
                let (is_allowed, left): (usize, usize) =
                    script(connection, SLIDING_WINDOW, &["requests", "request-count"], (now, WINDOW, LIMIT));
                assert!(left < LIMIT);
                allowed[now] += is_allowed;
            }
            // All go on together.
            let mut tick = cmd("INCR");
            let _: usize = tick.arg(format!("clock:{now}")).query(connection).expect("INCR");
            while cmd("GET").arg(format!("clock:{now}")).query::<usize>(connection).expect("GET") < CLIENTS {}
            now += 1;
        }
        allowed
    });

    let at = |now: usize| allowed.iter().map(|client| client[now]).sum::<usize>();
    for now in WINDOW..END {
        // A request counts until the window has passed.
        let in_window: usize = (now - WINDOW + 1..=now).map(at).sum();
        assert!(in_window <= LIMIT, "{in_window} within the window up to {now}");
    }
    let full_windows = END / WINDOW;
    assert_eq!((0..END).map(at).sum::<usize>(), LIMIT * full_windows, "and no fewer");
}

/// KEYS: the bucket. ARGV: rate, capacity, now, how many. Returns whether they are granted.
const TOKEN_BUCKET: &str = r#"
local tokens_key, timestamp_key = KEYS[1] .. ':tokens', KEYS[1] .. ':timestamp'
local rate, capacity, now, requested = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local last_tokens = tonumber(redis.call('get', tokens_key) or capacity)
local last_refreshed = tonumber(redis.call('get', timestamp_key) or 0)
local elapsed = math.max(0, now - last_refreshed)
local filled = math.min(capacity, last_tokens + elapsed * rate)
local is_granted = filled >= requested
if is_granted then filled = filled - requested end
redis.call('setex', tokens_key, 600, filled)
redis.call('setex', timestamp_key, 600, math.max(now, last_refreshed))
return is_granted and 1 or 0
"#;

#[test]
fn a_token_bucket_grants_what_has_flowed_into_it() {
    const CLIENTS: usize = 4;
    const CAPACITY: usize = 40;
    const RATE: usize = 3;
    const END: usize = 50;
    let server = Server::start(FOUR_SHARDS);
    let granted = crowd(&server, CLIENTS, |at, connection| {
        let mut granted = 0;
        for now in 0..=END {
            for _ in 0..2 {
                let is_granted: usize =
                    script(connection, TOKEN_BUCKET, &["bucket"], (RATE, CAPACITY, now, 1 + at));
                granted += is_granted * (1 + at);
            }
        }
        granted
    });

    let mut connection = connect(&server);
    let left: usize = cmd("GET").arg("bucket:tokens").query(&mut connection).expect("GET");
    let granted: usize = granted.iter().sum();
    assert!(left <= CAPACITY);
    assert!(granted + left <= CAPACITY + RATE * END, "{granted} granted, {left} left");
    assert!(granted > CAPACITY, "{granted} granted");
}

/// KEYS: items. ARGV: an order's ID, how many of each. All or nothing.
const RESERVE: &str = r#"
local order = ARGV[1]
for i = 1, #KEYS do
  local stock = tonumber(redis.call('HGET', KEYS[i], 'stock') or '0')
  if stock < tonumber(ARGV[i + 1]) then return redis.error_reply('SOLDOUT ' .. KEYS[i]) end
end
for i = 1, #KEYS do
  redis.call('HINCRBY', KEYS[i], 'stock', -ARGV[i + 1])
  redis.call('HINCRBY', KEYS[i], 'reserved', ARGV[i + 1])
end
return redis.status_reply('RESERVED ' .. order)
"#;

/// KEYS: the order. Gives back what it reserved, which is written in it.
const CANCEL: &str = r#"
local items = redis.call('HGETALL', KEYS[1])
for i = 1, #items, 2 do
  redis.call('HINCRBY', items[i], 'stock', items[i + 1])
  redis.call('HINCRBY', items[i], 'reserved', -items[i + 1])
end
redis.call('DEL', KEYS[1])
return #items / 2
"#;

#[test]
fn reservations_over_several_keys_never_sell_what_is_not_there() {
    const ITEMS: usize = 6;
    const STOCK: i64 = 40;
    const CLIENTS: usize = 4;
    const ORDERS: usize = 60;
    let server = Server::start(FOUR_SHARDS);
    let mut connection = connect(&server);
    for item in 0..ITEMS {
        let _: i64 = cmd("HSET")
            .arg(format!("item:{item}"))
            .arg(&["stock", &STOCK.to_string(), "reserved", "0"])
            .query(&mut connection)
            .expect("HSET");
    }
    let is_over = AtomicBool::new(false);
    let sold = crowd(&server, CLIENTS + 1, |at, connection| {
        let mut sold = [0; ITEMS];
        if at == CLIENTS {
            // Who looks on sees each item as a whole.
            while !is_over.load(Ordering::Relaxed) {
                for item in 0..ITEMS {
                    let mut get = cmd("HMGET");
                    let (stock, reserved): (i64, i64) = get
                        .arg(format!("item:{item}"))
                        .arg(&["stock", "reserved"])
                        .query(connection)
                        .expect("HMGET");
                    assert!(stock >= 0 && stock + reserved == STOCK, "{stock} and {reserved}");
                }
            }
            return sold;
        }
        for n in 0..ORDERS {
            let wanted: Vec<usize> = (0..3).map(|i| (n * (at + 1) + i * (1 + n % 2)) % ITEMS).collect();
            let items: Vec<String> = wanted.iter().map(|item| format!("item:{item}")).collect();
            let items: Vec<&str> = items.iter().map(String::as_str).collect();
            let order = format!("order:{at}:{n}");
            let reserved: RedisResult<String> = try_script(connection, RESERVE, &items, (&order, 1, 2, 1));
            match reserved {
                Ok(reply) => assert_eq!(reply, format!("RESERVED {order}")),
                Err(error) => {
                    assert_eq!(error.code(), Some("SOLDOUT"));
                    continue;
                }
            }
            if n % 3 == 0 {
                let mut note = cmd("HSET");
                note.arg(&order);
                items.iter().zip([1, 2, 1]).for_each(|(item, count)| {
                    note.arg(item).arg(count);
                });
                let _: i64 = note.query(connection).expect("HSET");
                let cancelled: usize = script(connection, CANCEL, &[order.as_str()], &NONE);
                assert_eq!(cancelled, 3);
                continue;
            }
            wanted.iter().zip([1, 2, 1]).for_each(|(&item, count)| sold[item] += count);
        }
        if at == 0 {
            is_over.store(true, Ordering::Relaxed);
        }
        sold
    });

    for item in 0..ITEMS {
        let (stock, reserved): (i64, i64) = cmd("HMGET")
            .arg(format!("item:{item}"))
            .arg(&["stock", "reserved"])
            .query(&mut connection)
            .expect("HMGET");
        let sold: i64 = sold.iter().map(|client| client[item]).sum();
        assert_eq!((stock, reserved), (STOCK - sold, sold));
        assert!(stock >= 0);
    }
    assert!(keys(&mut connection, "order:*").is_empty());
}
