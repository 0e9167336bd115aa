//! The shards' counters for Prometheus: `GET /metrics` on `metrics-port`.
//!
//! Nothing is collected for it: a scrape reads the counters that INFO reads, labels them with their shard, and has the
//! exporter of the `metrics` crate write them down. One thread answers one scrape after the other; a request may take
//! neither much time nor much room, so no request keeps the next one out for long.

use crate::config::Config;
use crate::runtime::{host, log};
use crate::shard::program_stats::{ProgramCounts, dearest};
use crate::shard::stats::ShardStats;
use crate::worker::Globals;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// A request head is a few lines; one that is longer is not answered.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// A scrape may take so long from the connection to the last byte of the answer.
const SCRAPE_TIME_MAX: Duration = Duration::from_secs(5);

/// Sockets for scrapes: one for each address of `bind`. While protected mode keeps strangers out, only this machine's
/// own address. The error is the operator's line.
pub fn listen(config: &Config) -> Result<Vec<TcpListener>, String> {
    if config.metrics_port == 0 {
        return Ok(Vec::new());
    }
    let is_protected = config.protected_mode && config.requirepass.is_empty();
    let addresses = if is_protected { vec!["127.0.0.1".to_string()] } else { config.bind.to_strings() };
    let mut listeners = Vec::new();
    for address in &addresses {
        match bind(address.trim_start_matches('-'), config.metrics_port) {
            Ok(listener) => listeners.push(listener),
            Err(_) if address.starts_with('-') => {}
            // Where the IPv6 wildcard serves IPv4 too, both cannot be had, and one is enough.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && !listeners.is_empty() => {}
            Err(error) => {
                return Err(format!(
                    "Failed listening for metrics on {address}, port {} (TCP): {error}",
                    config.metrics_port
                ));
            }
        }
    }
    Ok(listeners)
}

fn bind(address: &str, port: u16) -> io::Result<TcpListener> {
    let host = match address {
        "*" => "0.0.0.0",
        "::*" => "::",
        name => name,
    };
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
    TcpListener::bind(&addresses[..])
}

/// Answers scrapes, on a thread for each socket, until the process ends. The error is the operator's line.
pub fn serve(globals: &'static Globals, listeners: Vec<TcpListener>) -> Result<(), String> {
    for listener in listeners {
        let exporter = Exporter::new(globals);
        std::thread::Builder::new()
            .name("metrics".to_string())
            .spawn(move || exporter.serve(&listener))
            .map_err(|error| format!("Can't start the thread for metrics: {error}"))?;
    }
    Ok(())
}

struct Exporter {
    globals: &'static Globals,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Exporter {
    fn new(globals: &'static Globals) -> Exporter {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Exporter { globals, recorder, handle }
    }

    fn serve(&self, listener: &TcpListener) -> ! {
        loop {
            let answered = listener.accept().and_then(|(stream, _)| self.answer(stream));
            if let Err(error) = answered {
                log::debug(format_args!("A scrape of the metrics failed: {error}"));
                // Out of file descriptors, say: it will not be better at once.
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let deadline = Instant::now() + SCRAPE_TIME_MAX;
        stream.set_write_timeout(Some(SCRAPE_TIME_MAX))?;
        let head = read_head(&mut stream, deadline)?;
        let response = match judge(&head) {
            Request::Metrics => response("200 OK", &self.scrape()),
            Request::NotFound => response("404 Not Found", "The metrics are at /metrics.\n"),
            Request::NotAllowed => response("405 Method Not Allowed", "Only GET is understood.\n"),
            Request::Bad => response("400 Bad Request", "This is not HTTP.\n"),
        };
        stream.write_all(response.as_bytes())
    }

    /// The counters of this moment in Prometheus' text format.
    fn scrape(&self) -> String {
        metrics::with_local_recorder(&self.recorder, || {
            for (index, shard) in self.globals.stats.iter().enumerate() {
                let label = index.to_string();
                for counter in COUNTERS {
                    metrics::describe_counter!(counter.name, counter.help);
                    metrics::counter!(counter.name, "shard" => label.clone()).absolute((counter.read)(shard));
                }
                for gauge in GAUGES {
                    metrics::describe_gauge!(gauge.name, gauge.help);
                    metrics::gauge!(gauge.name, "shard" => label.clone()).set((gauge.read)(shard) as f64);
                }
            }
            metrics::describe_gauge!("shardis_resident_memory_bytes", "Memory of the process");
            metrics::gauge!("shardis_resident_memory_bytes").set(host::rss_bytes() as f64);
            metrics::describe_gauge!(
                "shardis_replicas",
                "Clients that read the effect stream, or are about to"
            );
            metrics::gauge!("shardis_replicas").set(self.globals.stream.replicas().len() as f64);
            metrics::describe_counter!("shardis_stream_bytes_total", "Length of the effect stream");
            metrics::counter!("shardis_stream_bytes_total").absolute(self.globals.stream.offset());
        });
        let mut text = self.handle.render();
        self.add_programs(&mut text);
        text
    }

    /// The programs that cost most. Not by the recorder, which would keep every name for ever.
    fn add_programs(&self, text: &mut String) {
        let shards = self.globals.stats.iter().map(|shard| &shard.programs);
        let programs = dearest(shards);
        for figure in PROGRAM_COUNTERS {
            if !programs.is_empty() {
                let ProgramFigure { name, help, .. } = figure;
                text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
            }
            for (program, counts) in &programs {
                let (name, value) = (figure.name, (figure.read)(counts));
                text.push_str(&format!("{name}{{program=\"{program}\"}} {value}\n"));
            }
        }
    }
}

/// A figure of one program, the sum over the shards.
struct ProgramFigure {
    name: &'static str,
    help: &'static str,
    read: fn(&ProgramCounts) -> u64,
}

static PROGRAM_COUNTERS: &[ProgramFigure] = &[
    ProgramFigure {
        name: "shardis_program_left_keys_total",
        help: "Runs of a script or function that used keys which they had not declared",
        read: |counts| counts.left_keys,
    },
    ProgramFigure {
        name: "shardis_program_calls_elsewhere_total",
        help: "Commands that it called on other shards, or for whose keys it waited",
        read: |counts| counts.calls_elsewhere,
    },
    ProgramFigure {
        name: "shardis_program_restarts_total",
        help: "How often it gave back its locks and started anew",
        read: |counts| counts.restarts,
    },
    ProgramFigure {
        name: "shardis_program_token_waits_total",
        help: "Runs that waited for the token",
        read: |counts| counts.token_waits,
    },
    ProgramFigure {
        name: "shardis_program_token_wait_nanoseconds_total",
        help: "Time that those waited, summed up",
        read: |counts| counts.token_wait_nanos,
    },
];

/// A figure of one shard.
struct Figure {
    name: &'static str,
    help: &'static str,
    read: fn(&ShardStats) -> u64,
}

const fn figure(name: &'static str, help: &'static str, read: fn(&ShardStats) -> u64) -> Figure {
    Figure { name, help, read }
}

static COUNTERS: &[Figure] = &[
    figure("shardis_commands_total", "Commands run on the shard", |shard| shard.commands_processed.get()),
    figure("shardis_remote_commands_total", "Of those, commands of other shards' clients", |shard| {
        shard.commands_remote.get()
    }),
    figure("shardis_error_replies_total", "Commands that ended in an error", |shard| {
        shard.error_replies.get()
    }),
    figure("shardis_connections_received_total", "Connections the shard was given", |shard| {
        shard.connections_received.get()
    }),
    figure("shardis_connections_rejected_total", "Connections that were refused", |shard| {
        shard.rejected_connections.get()
    }),
    figure("shardis_net_input_bytes_total", "Bytes received from clients", |shard| shard.input_bytes.get()),
    figure("shardis_net_output_bytes_total", "Bytes sent to clients", |shard| shard.output_bytes.get()),
    figure("shardis_keyspace_hits_total", "Reads of keys that were there", |shard| shard.keyspace_hits.get()),
    figure("shardis_keyspace_misses_total", "Reads of keys that were not there", |shard| {
        shard.keyspace_misses.get()
    }),
    figure("shardis_expired_keys_total", "Keys removed because their time was up", |shard| {
        shard.expired_keys.get()
    }),
    figure("shardis_evicted_keys_total", "Keys removed to make room", |shard| shard.evicted_keys.get()),
    figure("shardis_mesh_batches_total", "Batches of commands sent to other shards", |shard| {
        shard.mesh_batches.get()
    }),
    figure("shardis_mesh_commands_total", "Commands in those batches", |shard| shard.mesh_commands.get()),
    figure("shardis_mesh_hops_total", "Batches that came back answered", |shard| shard.hops.get()),
    figure("shardis_mesh_hop_nanoseconds_total", "Time those batches were away, summed up", |shard| {
        shard.hop_nanos.get()
    }),
    figure("shardis_transactions_1_shard_total", "EXECs whose keys were on one shard", |shard| {
        shard.transactions_of_1.get()
    }),
    figure("shardis_transactions_2_shards_total", "EXECs and commands over keys of 2 shards", |shard| {
        shard.transactions_of_2.get()
    }),
    figure("shardis_transactions_4_shards_total", "EXECs and commands over keys of 3 or 4 shards", |shard| {
        shard.transactions_of_3_4.get()
    }),
    figure("shardis_transactions_8_shards_total", "EXECs and commands over keys of 5 to 8 shards", |shard| {
        shard.transactions_of_5_8.get()
    }),
    figure(
        "shardis_transactions_more_shards_total",
        "EXECs and commands over keys of more shards",
        |shard| shard.transactions_of_more.get(),
    ),
    figure(
        "shardis_transaction_wait_nanoseconds_total",
        "Time that those over several shards waited for locks and for each other, summed up",
        |shard| shard.transaction_wait_nanos.get(),
    ),
    figure(
        "shardis_transaction_retries_total",
        "Commands that had to be run, or locked, anew because others came between",
        |shard| shard.transaction_retries.get(),
    ),
    figure(
        "shardis_exec_aborted_by_watch_total",
        "EXECs that a change of a watched key prevented",
        |shard| shard.exec_aborted_by_watch.get(),
    ),
    figure("shardis_exec_aborted_by_error_total", "EXECs of which a command could not be queued", |shard| {
        shard.exec_aborted_by_error.get()
    }),
    figure("shardis_lock_waits_total", "Commands and transactions that waited for a key's lock", |shard| {
        shard.lock_waits.get()
    }),
    figure("shardis_lock_wait_nanoseconds_total", "Time that those waited, summed up", |shard| {
        shard.lock_wait_nanos.get()
    }),
    figure("shardis_effect_bytes_total", "What was noted for the effect stream", |shard| {
        shard.effect_bytes.get()
    }),
    figure("shardis_turns_total", "Rounds of the shard's loop", |shard| shard.turns.get()),
];

static GAUGES: &[Figure] = &[
    figure("shardis_connections", "Clients connected", |shard| shard.clients.get()),
    figure("shardis_blocked_clients", "Clients whose command waits", |shard| shard.blocked_clients.get()),
    figure("shardis_keys", "Keys in all databases", |shard| shard.dbs.iter().map(|db| db.keys.get()).sum()),
    figure("shardis_volatile_keys", "Keys with a time to live", |shard| {
        shard.dbs.iter().map(|db| db.expires.get()).sum()
    }),
    figure("shardis_used_memory_bytes", "Memory the shard has allocated", |shard| {
        shard.used_memory().max(0) as u64
    }),
    figure("shardis_lock_wait_nanoseconds_max", "The longest wait for a key's lock", |shard| {
        shard.lock_wait_max_nanos.get()
    }),
    figure("shardis_lock_held_nanoseconds_max", "The longest that a transaction held its locks", |shard| {
        shard.lock_held_max_nanos.get()
    }),
    figure("shardis_token_waiting", "Programs and transactions that wait for the token", |shard| {
        shard.token_waiting.get()
    }),
    figure("shardis_mesh_queue_depth", "Messages that wait for room in the mesh", |shard| {
        shard.mesh_queue_depth.get()
    }),
    figure("shardis_commands_per_second", "Commands in the last seconds", |shard| shard.ops_per_sec.get()),
];

/// What a request's first line asks for.
#[derive(PartialEq, Eq, Debug)]
enum Request {
    Metrics,
    NotFound,
    NotAllowed,
    Bad,
}

fn judge(head: &[u8]) -> Request {
    let line = head.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    match words[..] {
        [method, target, version] if version.starts_with(b"HTTP/1.") => {
            let path = target.split(|&byte| byte == b'?').next();
            if method != b"GET" {
                Request::NotAllowed
            } else if path == Some(b"/metrics") {
                Request::Metrics
            } else {
                Request::NotFound
            }
        }
        _ => Request::Bad,
    }
}

/// Reads up to the empty line behind a request's head.
fn read_head(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut buf = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= REQUEST_BYTES_MAX {
            return Err(io::Error::other("the request is too long"));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let received = stream.read(&mut buf)?;
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&buf[..received]);
    }
    Ok(head)
}

fn response(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table::CommandTable;
    use crate::session::FAMILIES;
    use crate::worker::GlobalsInit;

    fn globals() -> &'static Globals {
        Box::leak(Box::new(Globals::new(GlobalsInit {
            tls: crate::runtime::tls::Tls::default(),
            config: Config::default(),
            table: CommandTable::new(FAMILIES, &[]).unwrap(),
            shard_count: 2,
            seed: 1,
            run_id: "0".repeat(40),
            started_at_ms: 0,
            io_backend: "epoll",
            executable: "shardis".to_string(),
        })))
    }

    #[test]
    fn only_a_get_of_the_metrics_is_served() {
        assert_eq!(judge(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Request::Metrics);
        assert_eq!(judge(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n"), Request::Metrics);
        assert_eq!(judge(b"GET / HTTP/1.1\r\n\r\n"), Request::NotFound);
        assert_eq!(judge(b"POST /metrics HTTP/1.1\r\n\r\n"), Request::NotAllowed);
        assert_eq!(judge(b"PING\r\n\r\n"), Request::Bad);
        assert_eq!(judge(b""), Request::Bad);
    }

    #[test]
    fn a_scrape_tells_each_shards_figures() {
        let globals = globals();
        globals.stats[0].commands_processed.add(7);
        globals.stats[1].dbs[3].keys.set(5);
        let exporter = Exporter::new(globals);

        let text = exporter.scrape();

        assert!(text.contains("# TYPE shardis_commands_total counter\n"), "{text}");
        assert!(text.contains("shardis_commands_total{shard=\"0\"} 7\n"), "{text}");
        assert!(text.contains("shardis_commands_total{shard=\"1\"} 0\n"), "{text}");
        assert!(text.contains("shardis_keys{shard=\"1\"} 5\n"), "{text}");
        globals.stats[0].commands_processed.add(1);
        assert!(exporter.scrape().contains("shardis_commands_total{shard=\"0\"} 8\n"));
    }

    #[test]
    fn a_scrape_over_a_socket_is_http() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        serve(globals(), vec![listener]).unwrap();
        let ask = |request: &[u8]| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };

        let answer = ask(b"GET /metrics HTTP/1.1\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(ask(b"GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert_eq!(ask(&[b'x'; REQUEST_BYTES_MAX]), "", "who says too much gets no answer");
    }
}
