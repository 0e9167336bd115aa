//! The composition root: reads the configuration, makes the shards, gives each a thread with a driver, and
//! ends in order.

mod data_set;

use self::data_set::{DataSet, Found};
use crate::cli::{self, Invocation};
use crate::command::table::CommandTable;
use crate::config::{Config, IoBackend, warnings};
use crate::runtime::clock::{Clock, SystemClock};
use crate::runtime::driver::{BellHandle, Driver};
use crate::runtime::epoll::EpollDriver;
use crate::runtime::listener::Wanted;
use crate::runtime::mesh::{self, MeshEnd, Parcel};
use crate::runtime::signals::StopSignal;
use crate::runtime::threads::{self, Backend};
use crate::runtime::tls::{Tls, TlsLayer};
use crate::runtime::uring::UringDriver;
use crate::runtime::{crash, files, listener, log, probe, signals, supervisor, title};
use crate::session::config::effects;
use crate::session::{self, FAMILIES};
use crate::shard::message::{Batch, Listeners, Message, NewConnection};
use crate::worker::link::{LinkGlobals, Master};
use crate::worker::load;
use crate::worker::persistence::temporary_file;
use crate::worker::{Exchange, Globals, GlobalsInit, IoRequest, NewConnectionInfo, ShutdownOptions, Worker};
use crate::{REDIS_VERSION, SHARDIS_VERSION};
use crate::{metrics, modules};
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

/// Messages taken from each peer in one turn, so that sockets are looked at in between.
const MESH_DRAIN_MAX: usize = 64;

/// Runs the program. `args` as the process got them.
pub fn main(args: Vec<OsString>) -> ExitCode {
    title::prepare();
    // The names that rename-command may use, before anything is renamed.
    let table = CommandTable::new(FAMILIES, &[]).expect("the rows fit together");
    let is_command = |name: &[u8]| table.lookup(name).is_some() || modules::builtin::has_command(name);
    let config = match cli::interpret(&args, &files::SystemFiles, &mut files::read_stdin, &is_command) {
        Invocation::Serve(config) => *config,
        Invocation::CheckRdb(path) => return data_set::check_rdb(&path),
        Invocation::CheckAof { path, repair } => return data_set::check_aof(&path, repair),
        Invocation::ModuleApi => {
            print!("{}", modules::abi::describe());
            return ExitCode::SUCCESS;
        }
        Invocation::Exit { status, stdout, stderr } => {
            print!("{stdout}");
            eprint!("{stderr}");
            return ExitCode::from(status as u8);
        }
    };
    match serve(config, &executable_path(&args[0]), args.len() > 1) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            log::warning(format_args!("{line}"));
            ExitCode::FAILURE
        }
    }
}

/// The path by which the program was called, made absolute while the working directory is still that of the call.
fn executable_path(called: &OsStr) -> String {
    let has_path = called.as_encoded_bytes().contains(&b'/');
    let path = if has_path { std::path::absolute(called).ok() } else { None };
    path.map_or(called.to_string_lossy().into_owned(), |path| path.to_string_lossy().into_owned())
}

/// Serves until the server is stopped. `is_configured`: by a file or by arguments. The error is the operator's line.
fn serve(mut config: Config, executable: &str, is_configured: bool) -> Result<(), String> {
    log::set_level(config.loglevel.into());
    if !config.logfile.is_empty() {
        let path = config.logfile.to_str_lossy();
        log::set_file(&path).map_err(|error| format!("Can't open the log file '{path}': {error}"))?;
    }
    if config.syslog_enabled {
        log::open_syslog(config.syslog_ident.as_bytes(), config.syslog_facility);
    }
    files::change_dir(&config.dir.to_str_lossy())
        .map_err(|error| format!("Can't chdir to '{}': {error}", config.dir.to_str_lossy()))?;
    supervisor::begin(config.supervised);
    if config.daemonize && supervisor::supervisor().is_none() {
        files::daemonize().map_err(|error| format!("Can't daemonize: {error}"))?;
    }
    crash::install(SHARDIS_VERSION, config.crash_log_enabled)
        .map_err(|error| format!("Can't install the crash handler: {error}"))?;
    crash::set_exit_on_panic(config.use_exit_on_panic);
    greet(&config, is_configured);
    let backend = choose_backend(config.io_backend)?;
    let shard_count = match config.shards {
        0 => threads::default_shard_count(),
        count => count as usize,
    };
    config.maxclients = files::raise_open_files_limit(config.maxclients, shard_count)?;
    let tls = configure_tls(&config)?;
    let listeners = listen(&config)?;
    if config.always_show_logo || is_shown_on_terminal(&config) {
        log::raw(&logo(&config));
    }
    // The line by which Redis' own test harness learns the process id, and that clients may connect.
    log::notice(format_args!(
        "Running mode=standalone, port={}. PID: {}",
        config.shown_port(),
        std::process::id()
    ));
    let pidfile = pidfile(&config);
    if let Some(path) = &pidfile
        && let Err(error) = files::create_pidfile(path)
    {
        log::warning(format_args!("Failed to write PID file: {error}"));
    }

    let _ = effects::oom_score(&config, config.replicaof.0.is_some());
    effects::proc_title(&config, executable);
    let metrics_listeners = metrics::listen(&config)?;
    let clock = SystemClock::get();
    let entropy = EntropySeed::read()?;
    let renames: Vec<(String, String)> = config
        .renamed_commands
        .iter()
        .map(|rename| (rename.from.to_str_lossy().into_owned(), rename.to.to_str_lossy().into_owned()))
        .collect();
    let socket_path = (!config.unixsocket.is_empty()).then(|| config.unixsocket.as_path().to_owned());
    let families = [FAMILIES, &modules::builtin::rows(&config)].concat();
    let table = CommandTable::new(&families, &renames)?;
    let loaded = modules::load_configured(&config, &table)?;
    let table = modules::table_with(table, loaded)?;
    let globals: &'static Globals = Box::leak(Box::new(Globals::new(GlobalsInit {
        table,
        shard_count,
        seed: entropy.seed,
        run_id: entropy.run_id,
        started_at_ms: clock.wall_ms(),
        io_backend: backend.name(),
        executable: executable.to_string(),
        config,
        tls,
    })));
    session::acl::configure_users(globals)?;
    modules::server::serve(globals);
    globals.hooks.ask_load_support(modules::load_support);
    metrics::serve(globals, metrics_listeners)?;
    let found = DataSet::find(globals)?;
    let outcome = run_shards(globals, backend, listeners, found);
    supervisor::tell_stopping();

    if let Some(path) = &pidfile {
        log::notice(format_args!("Removing the pid file."));
        files::remove_pidfile(path);
    }
    if let Some(path) = socket_path {
        log::notice(format_args!("Removing the unix socket file."));
        let _ = std::fs::remove_file(path);
    }
    outcome?;
    modules::events::tell_shutdown();
    log::warning(format_args!("Shardis is now ready to exit, bye bye..."));
    Ok(())
}

fn greet(config: &Config, is_configured: bool) {
    log::warning(format_args!("oO0OoO0OoO0Oo Shardis is starting oO0OoO0OoO0Oo"));
    log::warning(format_args!(
        "Shardis version={SHARDIS_VERSION}, redis_version={REDIS_VERSION}, bits={}, pid={}, just started",
        usize::BITS,
        std::process::id()
    ));
    if is_configured {
        log::warning(format_args!("Configuration loaded"));
    } else {
        log::warning(format_args!(
            "Warning: no config file specified, using the default config. In order to specify a config file use \
             shardis /path/to/redis.conf"
        ));
    }
    for line in warnings(config) {
        log::warning(format_args!("{line}"));
    }
    if let Some(warning) = listener::backlog_warning(config.tcp_backlog as i32) {
        log::warning(format_args!("{warning}"));
    }
}

/// Whether somebody sees the log as it is written.
fn is_shown_on_terminal(config: &Config) -> bool {
    !config.syslog_enabled && config.logfile.is_empty() && std::io::stdout().is_terminal()
}

/// What always-show-logo shows: what runs here.
fn logo(config: &Config) -> String {
    let bits = usize::BITS;
    let (port, pid) = (config.shown_port(), std::process::id());
    format!(
        "
      ____
     /\\   \\        Shardis {SHARDIS_VERSION}, {bits} bit
    /  \\___\\
   /___/\\  /       Running in standalone mode
   \\  \\ \\/        Port: {port}
    \\__\\/         PID: {pid}

"
    )
}

fn choose_backend(wanted: IoBackend) -> Result<Backend, String> {
    let backend = match wanted {
        IoBackend::Epoll => Backend::Epoll,
        IoBackend::Uring => match probe::uring() {
            Ok(_) => Backend::Uring,
            Err(why) => return Err(format!("io_uring is not available: {why}. Use --io-backend epoll.")),
        },
        IoBackend::Auto => match probe::uring() {
            Ok(_) => Backend::Uring,
            Err(why) => {
                log::warning(format_args!("io_uring is not available: {why}. Using epoll instead."));
                Backend::Epoll
            }
        },
    };
    log::notice(format_args!("I/O backend: {}", backend.name()));
    Ok(backend)
}

/// The sockets that the server listens on. CONFIG SET changes those for TCP.
#[derive(Default)]
struct Sockets {
    tcp: Listeners,
    unix: Option<OwnedFd>,
}

/// A server that was killed holds its port for some milliseconds longer, until the kernel has taken its rings
/// apart: so long its successor waits.
const LISTEN_TRIES: u32 = 3;
const LISTEN_RETRY_MS: u64 = 100;

fn listen_tcp(config: &Config) -> Result<Listeners, String> {
    let addresses = config.bind.to_strings();
    let wanted = Wanted::of(config, &addresses);
    let mut tries = 0;
    loop {
        tries += 1;
        match listener::both(wanted) {
            Ok((tcp, tls)) => return Ok(Listeners { tcp, tls }),
            Err(_) if tries < LISTEN_TRIES => {
                SystemClock::get().sleep(Duration::from_millis(LISTEN_RETRY_MS));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// All listening sockets. None at all is an error.
fn listen(config: &Config) -> Result<Sockets, String> {
    let mut sockets = Sockets { tcp: listen_tcp(config)?, unix: None };
    listener::mark(sockets.tcp.tcp.iter().chain(&sockets.tcp.tls), config.socket_mark_id);
    if !config.unixsocket.is_empty() {
        let path = config.unixsocket.to_str_lossy();
        let socket = listener::unix(&path, config.unixsocketperm, config.tcp_backlog as i32)
            .map_err(|error| error.to_string())?;
        sockets.unix = Some(socket);
    }
    if sockets.tcp.tcp.is_empty() && sockets.tcp.tls.is_empty() && sockets.unix.is_none() {
        return Err("Configured to not listen anywhere, exiting.".to_string());
    }
    Ok(sockets)
}

/// Reads certificates and keys, if TLS is used.
fn configure_tls(config: &Config) -> Result<Tls, String> {
    let tls = Tls::default();
    if Tls::is_wanted(config)
        && let Err(error) = tls.configure(config)
    {
        log::warning(format_args!("{error}"));
        return Err("Failed to configure TLS. Check logs for more info.".to_string());
    }
    Ok(tls)
}

/// Where the process id goes: as configured, or Redis' default for a daemon.
fn pidfile(config: &Config) -> Option<std::path::PathBuf> {
    if !config.pidfile.is_empty() {
        return Some(config.pidfile.as_path().to_owned());
    }
    config.daemonize.then(|| "/var/run/redis.pid".into())
}

/// What must not be guessed from outside: the hash seed, and the run's name.
struct EntropySeed {
    seed: u64,
    run_id: String,
}

impl EntropySeed {
    fn read() -> Result<EntropySeed, String> {
        use std::io::Read;
        let mut bytes = [0u8; 28];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(|error| format!("Can't read /dev/urandom: {error}"))?;
        let (seed, name) = bytes.split_at(8);
        Ok(EntropySeed {
            seed: u64::from_le_bytes(seed.try_into().expect("eight bytes")),
            run_id: name.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }
}

/// Starts a thread a shard and waits until all have ended.
fn run_shards(
    globals: &'static Globals,
    backend: Backend,
    listeners: Sockets,
    found: Found,
) -> Result<(), String> {
    let count = globals.stats.len();
    let bells: Vec<BellHandle> = (0..count)
        .map(|_| BellHandle::new())
        .collect::<io::Result<_>>()
        .map_err(|error| format!("Can't create the shards' bells: {error}"))?;
    globals.aof.set_bells(bells.clone());
    signals::install(&bells[0], &temporary_file())
        .map_err(|error| format!("Can't install signal handlers: {error}"))?;
    let ends = mesh::build::<Batch, Message>(&bells, mesh::capacity(count));
    let tcp = globals
        .change_listeners(|_| Ok::<_, std::convert::Infallible>(listeners.tcp))
        .unwrap_or_else(|never| match never {});
    let mut listeners = Some(Sockets { tcp, unix: listeners.unix });
    let mut entries: Vec<Box<dyn FnOnce() -> io::Result<()> + Send>> = Vec::new();
    let wakes = bells.iter().cloned().map(|bell| Box::new(move || bell.ring()) as Box<dyn Fn() + Send>);
    let (queues, incoming, done) = load::queues(wakes, false);
    let mut incoming = incoming.into_iter();
    let (data_set, first_part) = found.make_new(globals)?;
    // With fewer cores the shard that is waited for may need the core of the one that waits.
    let may_spin = std::thread::available_parallelism().is_ok_and(|cores| cores.get() >= count);
    for (index, (end, bell)) in ends.into_iter().zip(bells.iter().cloned()).enumerate() {
        let incoming = incoming.next().filter(|_| data_set.is_loaded());
        let listeners = listeners.take().unwrap_or_default();
        let bells = bells.clone();
        entries.push(Box::new(move || {
            let mut worker = Worker::new(index, globals, SystemClock::get());
            if let Some(incoming) = incoming {
                worker.load_from(incoming);
            }
            if let Some(part) = first_part {
                worker.shard.effects.begin_part(part, 0);
            }
            let outcome = match backend {
                Backend::Uring => UringDriver::new(bell)
                    .and_then(|driver| shard_loop(driver, end, worker, listeners, &bells, may_spin)),
                Backend::Epoll => EpollDriver::new(bell)
                    .and_then(|driver| shard_loop(driver, end, worker, listeners, &bells, may_spin)),
            };
            end_together(globals, index, &outcome, &bells);
            outcome
        }));
    }
    for (outside, bell) in globals.outside.iter().zip(bells.iter().cloned()) {
        outside.set_bell(Box::new(move || bell.ring()));
    }
    let replicaof = globals.config().1.replicaof.0.clone();
    if replicaof.is_some() {
        globals.link.begin_as_replica();
    }
    let shards = threads::start(backend, entries)?;
    let mut counted_bytes = 0;
    globals.count_other_thread(&mut counted_bytes, SystemClock::get());
    log::notice(format_args!("Shards: {count}"));
    let outcome = data_set.load(globals, queues, &done);
    globals.count_other_thread(&mut counted_bytes, SystemClock::get());
    if let Err(line) = outcome {
        globals.stop();
        bells.iter().for_each(BellHandle::ring);
        shards.into_iter().for_each(|shard| drop(shard.join()));
        return Err(line);
    }
    if let Some((host, port)) = replicaof {
        let master = Master { host: host.to_str_lossy().into_owned(), port };
        LinkGlobals::order(globals, SystemClock::get(), Some(master), None);
    }
    log::notice(format_args!("Ready to accept connections"));
    supervisor::tell_ready();
    let outcomes: Vec<_> = shards.into_iter().map(|shard| shard.join()).collect();
    globals.aof.stop_writer();
    globals.persistence.snapshots.abandon();
    for (index, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => return Err(format!("Shard {index} cannot go on: {error}")),
            Ok(None) | Err(_) => return Err(format!("Shard {index} has ended")),
        }
    }
    Ok(())
}

/// A shard has ended: all others do so, too. Whoever stopped the server did so on one shard, and a server without one of
/// its shards would leave clients waiting for its keys.
fn end_together(globals: &Globals, index: usize, outcome: &io::Result<()>, bells: &[BellHandle]) {
    if let Err(error) = outcome {
        log::warning(format_args!("Shard {index} cannot go on: {error}. The server stops."));
        globals.stop();
    }
    bells.iter().for_each(BellHandle::ring);
}

/// Runs one shard until the server stops. `may_spin`: each shard has a core of its own.
fn shard_loop<D: Driver>(
    driver: D,
    mut mesh: MeshEnd<Batch, Message>,
    mut worker: Worker,
    listeners: Sockets,
    bells: &[BellHandle],
    may_spin: bool,
) -> io::Result<()> {
    let mut driver = TlsLayer::new(driver);
    let mut tcp = listen_on(&mut driver, &mut worker, listeners.tcp);
    listeners.unix.into_iter().for_each(|listener| {
        driver.listen(listener);
    });
    let mut inbox = Vec::new();
    worker.put_off_long_slices();
    while !worker.globals.is_stopping() {
        let has_loaded = worker.is_loading() && worker.load_next();
        let timeout = if mesh.prepare_sleep() && !has_loaded {
            Duration::from_millis(worker.idle_ms() as u64)
        } else {
            Duration::ZERO
        };
        worker.before_wait();
        driver.turn(Some(timeout), &mut worker)?;
        worker.note_fills(|conn| driver.filling(conn));
        mesh.woke();
        let looked_at_ticks = worker.clock().ticks();
        loop {
            worker.begin_turn();
            mesh.drain(MESH_DRAIN_MAX, |from, parcel| inbox.push((from, unpack(parcel))));
            worker.deliver_all(&mut inbox);
            worker.end_turn();
            send_all(&mut driver, &mut worker, &mut tcp, &mut mesh);
            if worker.run_long_slice() {
                send_all(&mut driver, &mut worker, &mut tcp, &mut mesh);
            }
            let spins = may_spin && worker.expects_messages() && worker.idle_ms() > 0;
            if !spins || !await_message(&mesh, &worker, looked_at_ticks) {
                break;
            }
            worker.before_wait();
        }
        worker.shard.stats.mesh_queue_depth.set(mesh.overflow_len() as u64);
        if worker.shard.index == 0
            && let Some(signal) = signals::stop_requested()
            && !worker.globals.is_cron_paused()
        {
            stop_by(signal, &mut worker);
        }
        if worker.is_server_closing() {
            bells.iter().for_each(BellHandle::ring);
            if worker.close(&mut MeshExchange(&mut mesh)) {
                break;
            }
            signals::withdraw_stop();
            carry_out(&mut driver, &mut worker, &mut tcp);
        }
    }
    Ok(())
}

/// Sends what a turn has produced.
fn send_all<D: Driver>(
    driver: &mut TlsLayer<D>,
    worker: &mut Worker,
    tcp: &mut Vec<usize>,
    mesh: &mut MeshEnd<Batch, Message>,
) {
    carry_out(driver, worker, tcp);
    for (to, message) in worker.outbox.drain() {
        mesh.send(to, pack(message));
    }
    mesh.flush();
}

/// A message that is expected is there within this time, or whoever sends it does something else first.
const SPIN_NANOS: u64 = 20_000;

/// Sockets are looked at after this time, whatever is expected.
const SPIN_TURNS_NANOS: u64 = 100_000;

/// Waits for a message without sleeping: to sleep and to be woken takes longer than a step of a transaction on another shard.
/// Returns whether one has come. The sockets were looked at `looked_at_ticks`.
fn await_message(mesh: &MeshEnd<Batch, Message>, worker: &Worker, looked_at_ticks: u64) -> bool {
    let clock = worker.clock();
    let began_at_ticks = clock.ticks();
    if clock.ticks_to_nanos(began_at_ticks.saturating_sub(looked_at_ticks)) > SPIN_TURNS_NANOS {
        return false;
    }
    loop {
        if mesh.has_work() {
            return true;
        }
        if clock.ticks_to_nanos(clock.ticks().saturating_sub(began_at_ticks)) > SPIN_NANOS {
            return false;
        }
        std::hint::spin_loop();
    }
}

/// A signal asks the server to stop.
fn stop_by(signal: StopSignal, worker: &mut Worker) {
    let config = &worker.shard.config;
    let options = match signal {
        StopSignal::Term => config.shutdown_on_sigterm,
        StopSignal::Int => config.shutdown_on_sigint,
    };
    if worker.is_server_closing() || worker.globals.shutdown.until_ms().is_some() {
        return;
    }
    let (save, nosave) = (options.save, options.nosave);
    worker.begin_shutdown(None, ShutdownOptions { save, nosave, now: options.now, force: options.force });
}

/// The mesh of a shard that stands still.
struct MeshExchange<'a>(&'a mut MeshEnd<Batch, Message>);

impl Exchange for MeshExchange<'_> {
    fn receive(&mut self, inbox: &mut Vec<(usize, Message)>) {
        self.0.woke();
        self.0.drain(MESH_DRAIN_MAX, |from, parcel| inbox.push((from, unpack(parcel))));
    }

    fn send(&mut self, to: usize, message: Message) {
        self.0.send(to, pack(message));
    }

    fn flush(&mut self) -> bool {
        self.0.flush();
        self.0.overflow_len() > 0
    }
}

/// A message in the form in which it travels: batches, which are most of them, as they are.
fn pack(message: Message) -> Parcel<Batch, Message> {
    match message {
        Message::Commands(batch) => Parcel::There(batch),
        Message::Replies(batch) => Parcel::Back(batch),
        other => Parcel::Other(Box::new(other)),
    }
}

fn unpack(parcel: Parcel<Batch, Message>) -> Message {
    match parcel {
        Parcel::There(batch) => Message::Commands(batch),
        Parcel::Back(batch) => Message::Replies(batch),
        Parcel::Other(other) => *other,
    }
}

/// Starts listening on TCP sockets. Returns the driver's numbers of them.
fn listen_on<D: Driver>(driver: &mut D, worker: &mut Worker, listeners: Listeners) -> Vec<usize> {
    let mut numbers: Vec<usize> = listeners.tls.into_iter().map(|listener| driver.listen(listener)).collect();
    worker.set_tls_listeners(numbers.clone());
    numbers.extend(listeners.tcp.into_iter().map(|listener| driver.listen(listener)));
    numbers
}

/// Serves a connection.
fn adopt<D: Driver>(driver: &mut TlsLayer<D>, worker: &mut Worker, new: NewConnection) {
    let (socket, fd, info) = NewConnectionInfo::split(new);
    // Of the present configuration, which counts from the moment when CONFIG SET is answered.
    let (_, config) = worker.globals.config();
    if !info.unix_socket {
        listener::tune(&socket, config.tcp_keepalive_s);
    }
    let conn = if info.tls {
        let acceptor = worker.globals.tls.acceptor(config.tls_auth_clients);
        driver.add_tls(socket, acceptor.expect("TLS is configured before anybody listens for it"))
    } else {
        driver.add(socket)
    };
    worker.connected(conn, fd, info);
}

/// Does what the worker asked of its driver. `tcp`: the driver's numbers of the TCP listeners.
fn carry_out<D: Driver>(driver: &mut TlsLayer<D>, worker: &mut Worker, tcp: &mut Vec<usize>) {
    let mut requests = std::mem::take(&mut worker.requests);
    for request in requests.drain(..) {
        match request {
            IoRequest::Send(conn, buf) => driver.send(conn, buf),
            IoRequest::RecvExact { conn, buf, want } => driver.recv_exact(conn, buf, want),
            IoRequest::Pause(conn) => driver.pause(conn),
            IoRequest::Resume(conn) => driver.resume(conn),
            IoRequest::Close(conn) => driver.close(conn),
            IoRequest::Listen(listeners) => {
                tcp.drain(..).for_each(|old| driver.unlisten(old));
                *tcp = listen_on(driver, worker, listeners);
            }
            IoRequest::Adopt(new) => adopt(driver, worker, *new),
        }
    }
    debug_assert!(worker.requests.is_empty());
    worker.requests = requests;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::driver::{CloseReason, ConnId, Events, PeerAddr};

    /// A driver that does not work any more.
    struct Broken;

    impl Driver for Broken {
        fn listen(&mut self, _: OwnedFd) -> usize {
            0
        }
        fn unlisten(&mut self, _: usize) {}
        fn add(&mut self, _: OwnedFd) -> ConnId {
            ConnId::new(0, 0)
        }
        fn send(&mut self, _: ConnId, _: Vec<u8>) {}
        fn recv_exact(&mut self, _: ConnId, _: Vec<u8>, _: usize) {}
        fn pause(&mut self, _: ConnId) {}
        fn resume(&mut self, _: ConnId) {}
        fn close(&mut self, _: ConnId) {}
        fn turn<E: Events>(&mut self, _: Option<Duration>, _: &mut E) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::ENOMEM))
        }
        fn pending_out(&self, _: ConnId) -> usize {
            0
        }
        fn filling(&self, _: ConnId) -> usize {
            0
        }
        fn conn_count(&self) -> usize {
            0
        }
        fn bell_handle(&self) -> BellHandle {
            BellHandle::new().expect("an eventfd")
        }
        fn name(&self) -> &'static str {
            "broken"
        }
    }

    #[derive(Default)]
    struct Bells(usize);

    impl Events for Bells {
        fn accepted(&mut self, _: usize, _: OwnedFd, _: PeerAddr) {}
        fn accept_failed(&mut self, _: usize, _: io::Error) {}
        fn received(&mut self, _: ConnId, _: &[u8]) {}
        fn filled(&mut self, _: ConnId, _: Vec<u8>) {}
        fn sent(&mut self, _: ConnId, _: Vec<u8>) {}
        fn input_ended(&mut self, _: ConnId, _: CloseReason) {}
        fn send_failed(&mut self, _: ConnId, _: i32) {}
        fn bell(&mut self) {
            self.0 += 1;
        }
    }

    /// It used to end alone and without a word, and the server hung for its keys.
    #[test]
    fn a_shard_whose_driver_fails_ends_the_server() {
        let globals: &'static Globals = Box::leak(Box::new(Globals::new(GlobalsInit {
            table: CommandTable::new(FAMILIES, &[]).expect("nothing is renamed"),
            shard_count: 2,
            seed: 1,
            run_id: String::new(),
            started_at_ms: 0,
            io_backend: "broken",
            executable: String::new(),
            config: Config::default(),
            tls: Tls::default(),
        })));
        let bells = [(); 2].map(|()| BellHandle::new().expect("an eventfd"));
        let mesh = mesh::build::<Batch, Message>(&bells, 4).remove(1);
        let worker = Worker::new(1, globals, SystemClock::get());

        let outcome = shard_loop(Broken, mesh, worker, Sockets::default(), &[], false);
        end_together(globals, 1, &outcome, &bells);
        assert_eq!(outcome.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        assert!(globals.is_stopping());
        let mut heard = Bells::default();
        let mut other = EpollDriver::new(bells[0].clone()).expect("an epoll set");
        other.turn(Some(Duration::ZERO), &mut heard).expect("it works");
        assert_eq!(heard.0, 1, "the other shard is woken");
    }
}
