//! Failover by real sentinels, of masters and replicas of either make: what a replica has acknowledged is never lost, and the old
//! master comes back as a replica with the same data.
//!
//! Three sentinels watch three servers. A client asks them for the master and writes to it, with WAIT after each write. In each
//! round the master is killed, or stopped for as long as the failover takes. `SHARDIS_FAILOVER_ROUNDS`: how many rounds.

use crate::harness::{Connection, PATIENCE, StopOnDrop, free_port, leave_out, send_signal, wait_until};
use crate::rdb::{Dir, digest};
use crate::replies::strings;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What the client waits after each write.
const PAUSE: Duration = Duration::from_millis(5);

/// Of which make a server is.
#[derive(Clone, Copy)]
enum Make {
    Ours { shards: usize },
    Redis,
}

/// A process that has been started with a configuration file, which it may rewrite. Killed when dropped.
struct Process {
    child: Child,
    port: u16,
    binary: &'static str,
    dir: Dir,
}

impl Process {
    /// `None`: there is no such program.
    fn start(name: &str, binary: &'static str, directives: &str) -> Option<Process> {
        let port = free_port();
        let dir = Dir::new(&format!("sentinel-{name}-{port}"));
        let all = format!("port {port}\ndir {}\nlogfile {}/log\n{directives}", dir.path(), dir.path());
        fs::write(dir.0.join("conf"), all).expect("a configuration file");
        let child = spawn(binary, &dir)?;
        let process = Process { child, port, binary, dir };
        process.wait_until_up();
        Some(process)
    }

    fn wait_until_up(&self) {
        wait_until("it accepts connections", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    fn configuration(&self) -> String {
        fs::read_to_string(self.dir.0.join("conf")).expect("its configuration file")
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    fn start_again(&mut self) {
        self.child = spawn(self.binary, &self.dir).expect("it was there before");
        self.wait_until_up();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(binary: &str, dir: &Dir) -> Option<Child> {
    let mut command = Command::new(binary);
    command.arg(dir.0.join("conf")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().ok()
}

/// The servers and their sentinels.
struct Cluster {
    servers: Vec<Process>,
    sentinels: Vec<Process>,
}

impl Cluster {
    /// The first server is the master. `None`: what it takes is not there.
    fn start(name: &str, makes: [Make; 3]) -> Option<Cluster> {
        const SERVER: &str = "save \"\"\nenable-debug-command yes\nrepl-diskless-sync-delay 0\n";
        let start = |make| match make {
            Make::Ours { shards } => {
                let directives = format!("{SERVER}shards {shards}\n");
                Process::start(name, env!("CARGO_BIN_EXE_shardis"), &directives)
            }
            Make::Redis => Process::start(name, "redis-server", SERVER),
        };
        let servers: Option<Vec<Process>> = makes.into_iter().map(start).collect();
        let servers = servers?;
        let master = servers[0].port;
        for replica in &servers[1..] {
            let reply = Connection::to(replica.port).call(&["REPLICAOF", "127.0.0.1", &master.to_string()]);
            assert_eq!(reply, "+OK\r\n");
        }
        let directives = format!(
            "sentinel monitor mymaster 127.0.0.1 {master} 2\nsentinel down-after-milliseconds mymaster 1000\n\
             sentinel failover-timeout mymaster 6000\nsentinel parallel-syncs mymaster 1\n"
        );
        let sentinels: Option<Vec<Process>> =
            (0..3).map(|_| Process::start(name, "redis-sentinel", &directives)).collect();
        let cluster = Cluster { servers, sentinels: sentinels? };
        cluster.wait_until_complete();
        Some(cluster)
    }

    /// Every sentinel knows the others and both replicas, and each of these follows.
    fn wait_until_complete(&self) {
        for sentinel in &self.sentinels {
            let mut client = Connection::to(sentinel.port);
            wait_until("the sentinels know all", || {
                let info = client.call(&["INFO", "sentinel"]);
                info.contains("status=ok") && info.contains("slaves=2,sentinels=3")
            });
        }
        let mut master = Connection::to(self.servers[self.master()].port);
        wait_until("both replicas follow", || {
            master.call(&["INFO", "replication"]).matches("state=online").count() == 2
        });
    }

    /// Which server is the master, in the sentinels' view.
    fn master(&self) -> usize {
        let reply =
            Connection::to(self.sentinels[0].port).call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"]);
        let port = strings(&reply)[1].clone().expect("it is monitored");
        self.index_of(port.parse().expect("a port"))
    }

    fn index_of(&self, port: u16) -> usize {
        self.servers.iter().position(|server| server.port == port).expect("one of ours")
    }

    /// Waits until all three servers have the same data, under one master.
    fn wait_until_alike(&self, what: &str) {
        let mut clients: Vec<Connection> =
            self.servers.iter().map(|server| Connection::to(server.port)).collect();
        let master = self.master();
        let offset = |client: &mut Connection| client.info("replication", "master_repl_offset");
        wait_until(what, || {
            let at = offset(&mut clients[master]);
            (0..clients.len()).all(|n| n == master || offset(&mut clients[n]) == at)
        });
        let digests: Vec<String> = clients.iter_mut().map(digest).collect();
        assert!(digests.iter().all(|other| *other == digests[0]), "{what}: {digests:?}");
    }
}

/// A client that gives up a request after a second.
struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn to(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(Client { reader: BufReader::new(stream.try_clone()?), stream })
    }

    /// A request, and so many lines of its reply. An error of the server is an error.
    fn ask(&mut self, request: &str, lines: usize) -> io::Result<Vec<String>> {
        self.stream.write_all(format!("{request}\r\n").as_bytes())?;
        let mut reply = Vec::new();
        for _ in 0..lines {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.starts_with('-') || line.starts_with("*-1") {
                return Err(io::Error::other(line));
            }
            reply.push(line.trim_end().to_owned());
        }
        Ok(reply)
    }

    /// The master that one of the sentinels names.
    fn of_master(sentinels: &[u16]) -> io::Result<Client> {
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for &sentinel in sentinels {
            let named = Client::to(sentinel)
                .and_then(|mut client| client.ask("SENTINEL GET-MASTER-ADDR-BY-NAME mymaster", 5));
            outcome = named.and_then(|lines| Client::to(lines[4].parse().map_err(io::Error::other)?));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Writes the key `w:n`. Returns whether a replica has acknowledged it.
    fn write(&mut self, n: u64) -> io::Result<bool> {
        self.ask(&format!("SET w:{n} {n}"), 1)?;
        let replicas = self.ask("WAIT 1 500", 1)?;
        Ok(replicas[0] != ":0")
    }
}

/// Writes one key after the other to whoever is the master. `acknowledged` gets those that a replica has.
fn write_until(is_over: &AtomicBool, sentinels: &[u16], acknowledged: &Mutex<Vec<u64>>) {
    let mut client = None;
    for n in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let outcome = match &mut client {
            Some(client) => Client::write(client, n),
            none => Client::of_master(sentinels).and_then(|found| none.insert(found).write(n)),
        };
        match outcome {
            Ok(true) => acknowledged.lock().expect("nobody panics").push(n),
            Ok(false) => {}
            Err(_) => client = None,
        }
        // The other processes are to have time, too.
        thread::sleep(PAUSE);
    }
}

fn rounds() -> usize {
    std::env::var("SHARDIS_FAILOVER_ROUNDS").map_or(3, |count| count.parse().expect("a number of rounds"))
}

/// The master fails, another one takes its place, and the old one comes back. `count`: of what has been acknowledged.
fn fail_over(cluster: &mut Cluster, round: usize, count: &dyn Fn() -> usize, what: &str) {
    let more = |count_before: usize| move || count() > count_before + 50;
    let before = count();
    wait_until("writes are acknowledged", more(before));
    let old = cluster.master();
    let is_killed = round % 2 == 0;
    if is_killed {
        cluster.servers[old].kill();
    } else {
        send_signal(&cluster.servers[old].child, libc::SIGSTOP);
    }
    wait_until("there is another master", || cluster.master() != old);
    let before = count();
    wait_until("writes go on", more(before));
    if is_killed {
        cluster.servers[old].start_again();
    } else {
        send_signal(&cluster.servers[old].child, libc::SIGCONT);
    }
    let port = cluster.servers[old].port;
    // Its connections are closed when it becomes a replica.
    let role = || Client::to(port).and_then(|mut client| client.ask("ROLE", 3));
    wait_until("the old master follows", || role().is_ok_and(|lines| lines[2] == "slave"));
    cluster.wait_until_complete();

    let new = cluster.servers[cluster.master()].port;
    let follows = format!("replicaof 127.0.0.1 {new}");
    for (n, server) in cluster.servers.iter().enumerate() {
        let is_master = server.port == new;
        wait_until(&format!("{what}: the configuration of {n} is rewritten"), || {
            let configuration = server.configuration();
            configuration.contains(&follows) == !is_master && configuration.contains("replicaof") != is_master
        });
    }
}

fn rounds_of(name: &str, makes: [Make; 3]) {
    let Some(mut cluster) = Cluster::start(name, makes) else {
        leave_out("no redis-server, or no redis-sentinel");
        return;
    };
    let sentinels: Vec<u16> = cluster.sentinels.iter().map(|sentinel| sentinel.port).collect();
    let (is_over, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&is_over);
        scope.spawn(|| write_until(&is_over, &sentinels, &acknowledged));
        for round in 0..rounds() {
            let count = || acknowledged.lock().expect("nobody panics").len();
            fail_over(&mut cluster, round, &count, &format!("{name}, round {round}"));
        }
    });
    cluster.wait_until_alike(name);
    let mut master = Connection::to(cluster.servers[cluster.master()].port);
    master.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    for n in acknowledged.into_inner().expect("nobody panics") {
        let (key, value) = (format!("w:{n}"), n.to_string());
        let reply = master.call(&["GET", &key]);
        assert_eq!(reply.lines().nth(1), Some(value.as_str()), "{name}: {key} was acknowledged");
    }
}

/// What a sentinel sends is one transaction: the file has the master that is named in it.
#[test]
fn a_configuration_that_is_rewritten_behind_replicaof_names_the_master() {
    for shards in [1, 4] {
        let name = format!("rewrite-{shards}");
        let server = Process::start(&name, env!("CARGO_BIN_EXE_shardis"), &format!("shards {shards}\n"));
        let server = server.expect("it is there");
        let mut client = Connection::to(server.port);
        for (words, is_named) in
            [(["REPLICAOF", "127.0.0.1", "1"], true), (["REPLICAOF", "NO", "ONE"], false)]
        {
            client.call(&["MULTI"]);
            client.call(&words);
            client.call(&["CONFIG", "REWRITE"]);
            assert_eq!(client.call(&["EXEC"]), "*2\r\n+OK\r\n+OK\r\n");
            assert_eq!(server.configuration().contains("replicaof 127.0.0.1 1"), is_named, "{shards}");
        }
    }
}

#[test]
fn sentinels_fail_over_servers_of_its_own_kind() {
    rounds_of("ours", [Make::Ours { shards: 4 }, Make::Ours { shards: 1 }, Make::Ours { shards: 2 }]);
}

#[test]
fn sentinels_fail_over_to_redis_and_back() {
    rounds_of("to-redis", [Make::Ours { shards: 4 }, Make::Redis, Make::Redis]);
}

#[test]
fn sentinels_fail_over_from_redis() {
    rounds_of("from-redis", [Make::Redis, Make::Ours { shards: 4 }, Make::Ours { shards: 1 }]);
}

/// The control.
#[test]
fn sentinels_fail_over_redis() {
    rounds_of("redis", [Make::Redis, Make::Redis, Make::Redis]);
}
