//! Queues of jobs by scripts: what is lost, done twice, or out of order would be seen here.

use crate::harness::Server;
use crate::scripts::{FOUR_SHARDS, NONE, connect, crowd, keys, script};
use redis::cmd;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

/// KEYS: the prefix of all keys of the queue. ARGV: the job's data, its priority. Returns its ID.
const ADD_JOB: &str = r#"
local prefix = KEYS[1]
local rcall = redis.call
local id = rcall('INCR', prefix .. 'id')
local job_key = prefix .. id
rcall('HMSET', job_key, 'data', ARGV[1], 'attempts', 0, 'priority', ARGV[2])
if tonumber(ARGV[2]) > 0 then
  rcall('ZADD', prefix .. 'prioritized', ARGV[2] * 4294967296 + id, id)
else
  rcall('LPUSH', prefix .. 'wait', id)
end
rcall('XADD', prefix .. 'events', 'MAXLEN', '~', 100, '*', 'event', 'added', 'job', id)
return id
"#;

/// KEYS: the prefix. ARGV: the worker's token. Returns the ID and the data of a job that is now locked by it.
const TAKE_JOB: &str = r#"
local prefix = KEYS[1]
local rcall = redis.call
local function take(id)
  local job_key = prefix .. id
  rcall('LPUSH', prefix .. 'active', id)
  rcall('SET', job_key .. ':lock', ARGV[1], 'PX', 600000)
  rcall('HINCRBY', job_key, 'attempts', 1)
  rcall('XADD', prefix .. 'events', 'MAXLEN', '~', 100, '*', 'event', 'active', 'job', id)
  return { id, rcall('HGET', job_key, 'data') }
end
local first = rcall('ZPOPMIN', prefix .. 'prioritized')
if first[1] then return take(first[1]) end
local id = rcall('RPOP', prefix .. 'wait')
if id then return take(id) end
return false
"#;

/// KEYS: the prefix. ARGV: ID, token, 1 if the job failed and is to be tried again. Returns 1 if it was the worker's.
const FINISH_JOB: &str = r#"
local prefix, id = KEYS[1], ARGV[1]
local job_key = prefix .. id
if redis.call('GET', job_key .. ':lock') ~= ARGV[2] then return redis.error_reply('LOCKLOST ' .. id) end
if redis.call('LREM', prefix .. 'active', 1, id) ~= 1 then return redis.error_reply('NOTACTIVE ' .. id) end
redis.call('DEL', job_key .. ':lock')
if ARGV[3] == '1' then
  redis.call('LPUSH', prefix .. 'wait', id)
  return 0
end
redis.call('HINCRBY', prefix .. 'metrics', 'done', 1)
redis.call('ZADD', prefix .. 'completed', redis.call('HGET', job_key, 'attempts'), redis.call('HGET', job_key, 'data'))
redis.call('DEL', job_key)
return 1
"#;

#[test]
fn a_queue_that_derives_its_keys_does_each_job_once() {
    const JOBS: usize = 240;
    const WORKERS: usize = 4;
    const PREFIXES: [&str; 2] = ["bull:mail:", "bull:video:"];
    let server = Server::start(FOUR_SHARDS);
    let done = AtomicUsize::new(0);
    crowd(&server, WORKERS + 2, |at, connection| {
        if at >= WORKERS {
            for n in 0..JOBS / 2 {
                let prefix = PREFIXES[n % 2];
                let _: i64 =
                    script(connection, ADD_JOB, &[prefix], (format!("{}", n * 2 + at % 2), n % 5 / 4));
            }
            return;
        }
        let mut failures = 0;
        while done.load(Ordering::Relaxed) < JOBS {
            let prefix = PREFIXES[at % 2];
            let taken: Option<(i64, String)> =
                script(connection, TAKE_JOB, &[prefix], format!("worker:{at}"));
            let Some((id, _)) = taken else { continue };
            failures += 1;
            let fails = failures % 4 == 0;
            let finished: i64 =
                script(connection, FINISH_JOB, &[prefix], (id, format!("worker:{at}"), i64::from(fails)));
            assert_eq!(finished, i64::from(!fails));
            done.fetch_add(finished as usize, Ordering::Relaxed);
        }
    });

    let mut connection = connect(&server);
    let mut jobs = BTreeSet::new();
    for prefix in PREFIXES {
        let completed: Vec<String> = cmd("ZRANGE")
            .arg(format!("{prefix}completed"))
            .arg(0)
            .arg(-1)
            .query(&mut connection)
            .expect("ZRANGE");
        let count: usize =
            cmd("HGET").arg(format!("{prefix}metrics")).arg("done").query(&mut connection).expect("HGET");
        assert_eq!((count, completed.len()), (JOBS / 2, JOBS / 2));
        jobs.extend(completed);
        let expected = ["completed", "events", "id", "metrics"].map(|name| format!("{prefix}{name}"));
        assert_eq!(keys(&mut connection, &format!("{prefix}*")), expected, "nothing else is left");
    }
    assert_eq!(jobs, (0..JOBS).map(|n| n.to_string()).collect());
}

/// KEYS: the schedule. ARGV: the time, how many at most. Moves what is due to the queues that the jobs name.
const MOVE_DUE: &str = r#"
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, payload in ipairs(due) do
  local job = cjson.decode(payload)
  redis.call('ZREM', KEYS[1], payload)
  redis.call('SADD', 'queues', job.queue)
  redis.call('LPUSH', 'queue:' .. job.queue, payload)
end
return #due
"#;

#[test]
fn delayed_jobs_come_to_their_queues_once_and_not_early() {
    const JOBS: usize = 300;
    const QUEUES: usize = 6;
    let server = Server::start(FOUR_SHARDS);
    let mut connection = connect(&server);
    for n in 0..JOBS {
        let payload = format!(r#"{{"id":{n},"queue":"q{}"}}"#, n % QUEUES);
        let added: i64 =
            cmd("ZADD").arg("schedule").arg(n).arg(payload).query(&mut connection).expect("ZADD");
        assert_eq!(added, 1);
    }
    let popped = AtomicUsize::new(0);
    // Two pollers whose clocks differ, and workers that block on the queues.
    let found = crowd(&server, 2 + QUEUES, |at, connection| {
        let mut found = Vec::new();
        if at < 2 {
            for now in (at * 3..JOBS + 10).step_by(5) {
                while script::<i64>(connection, MOVE_DUE, &["schedule"], (now, 7)) > 0 {}
            }
            return found;
        }
        while popped.load(Ordering::Relaxed) < JOBS {
            let queue = format!("queue:q{}", at - 2);
            let job: Option<(String, String)> =
                cmd("BRPOP").arg(queue).arg(0.05).query(connection).expect("BRPOP");
            if let Some((_, payload)) = job {
                found.push(payload);
                popped.fetch_add(1, Ordering::Relaxed);
            }
        }
        found
    });

    let jobs: Vec<String> = found.into_iter().flatten().collect();
    assert_eq!(jobs.len(), JOBS);
    assert_eq!(jobs.into_iter().collect::<BTreeSet<_>>().len(), JOBS, "each came once");
    assert_eq!(keys(&mut connection, "*"), ["queues"]);
    let scheduled: i64 = script(&mut connection, MOVE_DUE, &["schedule"], ("+inf", 10));
    assert_eq!(scheduled, 0);
}

/// KEYS: the queue. ARGV: the payload, for how many milliseconds it is unique. Returns 1 if the job is queued.
const PUSH_UNIQUE: &str = r#"
local digest = redis.sha1hex(ARGV[1])
local lock = 'uniquejobs:' .. digest
if redis.call('SET', lock, ARGV[1], 'NX', 'PX', ARGV[2]) then
  redis.call('LPUSH', KEYS[1], ARGV[1])
  redis.call('HINCRBY', 'uniquejobs:changelog', digest, 1)
  return 1
end
return 0
"#;

/// KEYS: the queue. Returns a job, which may be queued again from now on.
const POP_UNIQUE: &str = r#"
local job = redis.call('RPOP', KEYS[1])
if job then redis.call('DEL', 'uniquejobs:' .. redis.sha1hex(job)) end
return job
"#;

#[test]
fn a_unique_job_is_queued_once_at_a_time() {
    const PAYLOADS: usize = 12;
    const PUSHES: usize = 120;
    let server = Server::start(FOUR_SHARDS);
    let pushers = AtomicUsize::new(3);
    let counts = crowd(&server, 5, |at, connection| {
        let mut count = 0;
        if at < 3 {
            for n in 0..PUSHES {
                let payload = format!("payload:{}", (n * 7 + at) % PAYLOADS);
                count += script::<i64>(connection, PUSH_UNIQUE, &["unique"], (payload, 600_000));
            }
            pushers.fetch_sub(1, Ordering::Relaxed);
            return count;
        }
        loop {
            let is_last = pushers.load(Ordering::Relaxed) == 0;
            // Each payload is in the queue at most once, at any moment.
            let queued: Vec<String> =
                cmd("LRANGE").arg("unique").arg(0).arg(-1).query(connection).expect("LRANGE");
            let distinct: BTreeSet<&String> = queued.iter().collect();
            assert_eq!(distinct.len(), queued.len(), "{queued:?}");
            match script::<Option<String>>(connection, POP_UNIQUE, &["unique"], &NONE) {
                Some(_) => count -= 1,
                None if is_last => return count,
                None => {}
            }
        }
    });

    assert_eq!(counts.iter().sum::<i64>(), 0, "what was pushed is what was popped: {counts:?}");
    let pushed: i64 = counts[..3].iter().sum();
    assert!(pushed >= PAYLOADS as i64, "{counts:?}");
    let mut connection = connect(&server);
    let changes: BTreeMap<String, i64> =
        cmd("HGETALL").arg("uniquejobs:changelog").query(&mut connection).expect("HGETALL");
    assert_eq!((changes.len(), changes.values().sum::<i64>()), (PAYLOADS, pushed));
    assert_eq!(keys(&mut connection, "*"), ["uniquejobs:changelog"]);
}

/// KEYS: the sender. ARGV: a message, how many an inbox holds. Returns how many got it.
const NOTIFY: &str = r#"
local followers = redis.call('SMEMBERS', 'followers:' .. KEYS[1])
for _, follower in ipairs(followers) do
  local inbox = 'inbox:' .. follower
  redis.call('LPUSH', inbox, KEYS[1] .. ':' .. ARGV[1])
  redis.call('LTRIM', inbox, 0, ARGV[2] - 1)
end
redis.call('INCRBY', 'sent', #followers)
return #followers
"#;

#[test]
fn notifications_by_lists_reach_each_follower_once_in_the_order_of_each_sender() {
    const SENDERS: usize = 3;
    const FOLLOWERS: usize = 5;
    const MESSAGES: usize = 60;
    let server = Server::start(FOUR_SHARDS);
    let mut connection = connect(&server);
    for sender in 0..SENDERS {
        for follower in 0..FOLLOWERS {
            let _: i64 = cmd("SADD")
                .arg(format!("followers:s{sender}"))
                .arg(format!("f{follower}"))
                .query(&mut connection)
                .expect("SADD");
        }
    }
    let inboxes = crowd(&server, SENDERS + FOLLOWERS, |at, connection| {
        let mut inbox: Vec<Vec<usize>> = vec![Vec::new(); SENDERS];
        if at < SENDERS {
            for n in 0..MESSAGES {
                let sender = format!("s{at}");
                let sent: usize = script(connection, NOTIFY, &[sender.as_str()], (n, 1_000_000));
                assert_eq!(sent, FOLLOWERS);
            }
            return inbox;
        }
        for _ in 0..SENDERS * MESSAGES {
            let (_, message): (String, String) = cmd("BRPOP")
                .arg(format!("inbox:f{}", at - SENDERS))
                .arg(60)
                .query(connection)
                .expect("BRPOP");
            let (sender, n) = message[1..].split_once(':').expect("a sender and a number");
            inbox[sender.parse::<usize>().expect("a number")].push(n.parse().expect("a number"));
        }
        inbox
    });

    let in_order: Vec<usize> = (0..MESSAGES).collect();
    for inbox in &inboxes[SENDERS..] {
        assert!(inbox.iter().all(|messages| *messages == in_order), "{inbox:?}");
    }
    let sent: usize = cmd("GET").arg("sent").query(&mut connection).expect("GET");
    assert_eq!(sent, SENDERS * FOLLOWERS * MESSAGES);
    assert!(keys(&mut connection, "inbox:*").is_empty());
}
