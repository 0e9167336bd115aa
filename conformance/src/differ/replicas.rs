//! Replicas of the other make. Each follows one of the servers to which a sequence is sent: after it, the replica has to have
//! what its master has, without an error on the way. It finds effects that say other things than what was done, and those
//! that only their own make understands.
//!
//! Keys expire, and are deleted by the master, while it is compared with the replica, so a difference counts only if it stays
//! although the replica has all of the stream. What a real Redis does not send to its real replica is left out of sequences:
//! [`UNSENT`].

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::compare::How;
use super::fleet::Member;
use super::resp::{Broken, Client};
use super::run::{Difference, Session};
use super::sequence::{Call, Sequence};
use super::state::{self, Asked};

/// How long a replica may take to come to its master's offset.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long its data may differ there: as long as keys whose time has come may wait to be deleted, many times over.
const UNLIKE_FOR: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(1);

/// The last write of a sequence, in a database of its own. A replica that has it has all that came before.
const LAST_WRITE: &str = "the last write";
const LAST_WRITE_IN: &str = "15";

/// Calls after which a real Redis 7.0.15 differs from its real replica: words that all stand in them, and why.
const UNSENT: [(&[&str], &str); 1] = [(
    &["BITFIELD", "FAIL"],
    "it makes the string, or makes it longer, also where all of its changes fail, which is not sent then",
)];

/// A master and its replica, at a sequence.
pub struct Pair {
    /// The master's, then the replica's.
    sessions: [Session; 2],
    /// What they told of errors and of the link before the sequence.
    before: Health,
    log: PathBuf,
}

/// How far a server is in the stream that it follows or makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub offset: u64,
    /// Of a replica: whether it has its master.
    pub is_linked: bool,
}

/// What must not change while a replica follows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Health {
    /// The connections of the master's replicas. (Its counts of synchronizations fall to 0 by CONFIG RESETSTAT.)
    links: Vec<String>,
    /// Errors of the replica in reply to its master.
    error_count: u64,
    /// Lines of warnings in the replica's log.
    warnings: Vec<String>,
}

impl Position {
    pub fn of(client: &mut Client) -> Result<Position, Broken> {
        let info = client.info(&["replication"])?;
        if info.field("role") == Some("slave") {
            let is_linked = info.field("master_link_status") == Some("up");
            return Ok(Position { offset: info.number("slave_repl_offset")?, is_linked });
        }
        Ok(Position { offset: info.number("master_repl_offset")?, is_linked: false })
    }

    /// Whether a replica here has all that a master has sent up to there.
    pub fn has_reached(&self, master: &Position) -> bool {
        self.is_linked && self.offset >= master.offset
    }
}

impl Health {
    fn read(sessions: &mut [Session; 2], log: &Path) -> Asked<Health> {
        let [master, replica] = sessions;
        let links = master.admin.ask(&["CLIENT", "LIST", "TYPE", "REPLICA"]);
        let links = links.map_err(|broken| (master.label.clone(), broken))?;
        let errors = replica.admin.info(&["stats"]).and_then(|info| info.number("unexpected_error_replies"));
        Ok(Health {
            links: ids(&String::from_utf8_lossy(links.text().unwrap_or_default())),
            error_count: errors.map_err(|broken| (replica.label.clone(), broken))?,
            warnings: warnings(&fs::read_to_string(log).unwrap_or_default()),
        })
    }

    /// What has gone wrong since, in words: what was compared, and what it was and is.
    fn worsened(&self, now: &Health) -> Option<(&'static str, String, String)> {
        if let Some(new) = now.warnings.get(self.warnings.len()..).filter(|new| !new.is_empty()) {
            return Some(("the replica's log", "(nothing new)".to_owned(), new.join("\n")));
        }
        if self.error_count != now.error_count {
            let (was, is) = (self.error_count.to_string(), now.error_count.to_string());
            return Some(("the replica's unexpected_error_replies", was, is));
        }
        if self.links != now.links {
            return Some(("the links of the master's replicas", self.links.join(" "), now.links.join(" ")));
        }
        None
    }
}

/// The first field of each line of CLIENT LIST: `id=7`.
fn ids(clients: &str) -> Vec<String> {
    let mut ids: Vec<String> =
        clients.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    ids.sort();
    ids
}

/// The lines of a log with the level of warnings: `PID:ROLE DAY MONTH YEAR TIME # TEXT`. A server tells by one that it has
/// answered its master with an error.
fn warnings(log: &str) -> Vec<String> {
    let is_warning = |line: &&str| line.split(' ').nth(5) == Some("#");
    log.lines().filter(is_warning).map(str::to_owned).collect()
}

impl Pair {
    pub fn open(master: &Member, replica: &Member, sequence: &Sequence) -> Asked<Pair> {
        let connect = |member: &Member| {
            let connected = Session::connect(&member.label, member.port, sequence.resp);
            connected.map_err(|broken| (member.label.clone(), broken))
        };
        let mut sessions = [connect(master)?, connect(replica)?];
        // Encodings have limits, and some of them show in values: small sorted sets keep no sign of -0.
        sessions[1].configure(sequence).map_err(|broken| (replica.label.clone(), broken))?;
        let log = replica.log();
        let before = Health::read(&mut sessions, &log)?;
        Ok(Pair { sessions, before, log })
    }

    /// The first difference, once the replica has all that its master has sent.
    fn compare(&mut self) -> Asked<Option<Difference>> {
        self.write_last()?;
        let started = Instant::now();
        let mut unlike_since = None;
        loop {
            let (unlike, is_for_good) = match self.lag()? {
                Some(lag) => (Some(lag), started.elapsed() > PATIENCE),
                None => {
                    let unlike = state::compare_replica(&mut self.sessions)?;
                    (unlike, unlike_since.get_or_insert_with(Instant::now).elapsed() > UNLIKE_FOR)
                }
            };
            // Afterwards: the replica has taken all of the stream by now, or what went wrong says why it has not.
            let now = Health::read(&mut self.sessions, &self.log)?;
            if let Some((what, was, is)) = self.before.worsened(&now) {
                return Ok(Some(self.difference(what, was, is)));
            }
            if unlike.is_none() || is_for_good {
                return Ok(unlike);
            }
            thread::sleep(POLL);
        }
    }

    fn write_last(&mut self) -> Asked<()> {
        let master = &mut self.sessions[0];
        let written = (|| {
            master.admin.ask(&["SELECT", LAST_WRITE_IN])?;
            master.admin.ask(&["INCR", LAST_WRITE])?;
            master.admin.ask(&["SELECT", "0"])
        })();
        written.map(|_| ()).map_err(|broken| (master.label.clone(), broken))
    }

    /// What the replica does not have yet.
    fn lag(&mut self) -> Asked<Option<Difference>> {
        let mut positions = Vec::new();
        for session in &mut self.sessions {
            let position = Position::of(&mut session.admin);
            positions.push(position.map_err(|broken| (session.label.clone(), broken))?);
        }
        let (master, replica) = (&positions[0], &positions[1]);
        let link = if replica.is_linked { "up" } else { "down" };
        if !replica.has_reached(master) {
            let is = format!("{}, its link is {link}", replica.offset);
            return Ok(Some(self.difference("the offset", master.offset.to_string(), is)));
        }
        Ok(None)
    }

    fn difference(&self, what: &str, of_master: String, of_replica: String) -> Difference {
        let [master, replica] = &self.sessions;
        let answers = [(master.label.clone(), of_master), (replica.label.clone(), of_replica)];
        Difference { at: 0, what: what.to_owned(), answers }
    }
}

/// Why this call cannot be compared, if so. Scripts have their calls in their text.
fn unsent(call: &Call) -> Option<&'static str> {
    let text = String::from_utf8_lossy(&call.args.join(&b' ')).to_ascii_uppercase();
    let is_it = |(words, _): &&(&[&str], &'static str)| words.iter().all(|word| text.contains(word));
    UNSENT.iter().find(is_it).map(|&(_, why)| why)
}

/// The sequence without what cannot be compared: that, and what tells of a server's clients, of which each replica is one.
pub fn comparable(mut sequence: Sequence) -> Sequence {
    let tells_of_clients = |call: &Call| matches!(call.how, How::Slowlog | How::Clients);
    sequence.calls.retain(|call| unsent(call).is_none() && !tells_of_clients(call));
    sequence
}

/// The first difference between a master and its replica.
pub fn compare(pairs: &mut [Pair]) -> Asked<Option<Difference>> {
    for pair in pairs {
        if let Some(difference) = pair.compare()? {
            return Ok(Some(difference));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_has_reached_its_master_with_its_offset_and_its_link() {
        let master = Position { offset: 7, is_linked: false };
        let replica = |offset, is_linked| Position { offset, is_linked };

        assert!(replica(7, true).has_reached(&master));
        assert!(replica(8, true).has_reached(&master));
        assert!(!replica(6, true).has_reached(&master));
        assert!(!replica(7, false).has_reached(&master));
    }

    #[test]
    fn an_error_in_the_stream_and_a_lost_link_are_told_even_if_the_data_is_the_same() {
        let before = Health {
            links: ids("id=7 addr=127.0.0.1:1\nid=8 addr=127.0.0.1:2\n"),
            error_count: 1,
            warnings: vec!["old".to_owned()],
        };
        let told = |now: Health| before.worsened(&now).map(|(what, ..)| what);

        assert_eq!(told(before.clone()), None);
        assert_eq!(
            told(Health { error_count: 2, ..before.clone() }),
            Some("the replica's unexpected_error_replies")
        );
        let links = vec!["id=7".to_owned(), "id=9".to_owned()];
        assert_eq!(told(Health { links, ..before.clone() }), Some("the links of the master's replicas"));
        let warnings = vec!["old".to_owned(), "new".to_owned()];
        assert_eq!(told(Health { warnings, ..before.clone() }), Some("the replica's log"));
    }

    #[test]
    fn what_redis_does_not_send_is_left_out() {
        let is_left_out = |line: &str| unsent(&Call::of_words(line)).is_some();

        assert!(is_left_out("bitfield b overflow fail SET u8 0 256"));
        assert!(is_left_out("EVAL redis.call('BITFIELD',KEYS[1],'OVERFLOW','FAIL') 1 b"));
        assert!(!is_left_out("BITFIELD b OVERFLOW SAT SET u8 0 256"));
    }

    #[test]
    fn what_tells_of_clients_is_left_out_where_servers_have_replicas() {
        let call = |how| Call { how, ..Call::of_words("SLOWLOG GET -1") };
        let calls = [How::Slowlog, How::Exact, How::Clients].map(call).to_vec();
        let (seed, resp, settings) = (1, 2, Vec::new());
        let sequence = comparable(Sequence { seed, resp, compares_replies: true, settings, calls });

        assert_eq!(sequence.calls.iter().map(|call| call.how).collect::<Vec<_>>(), [How::Exact]);
    }

    #[test]
    fn only_warnings_of_a_log_count() {
        let log = "7:S 30 Nov 2026 19:26:41.119 # == CRITICAL == This replica is sending an error to its master\n\
                   7:S 30 Nov 2026 19:26:41.120 * a # in the text\n\
                   no line of a server\n";

        assert_eq!(warnings(log).len(), 1);
        assert!(warnings(log)[0].contains("CRITICAL"));
    }
}
