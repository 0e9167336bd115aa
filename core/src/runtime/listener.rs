//! Sockets to listen on, and what is to be set on a connection.
//!
//! SO_REUSEADDR only: with SO_REUSEPORT a second server would start on a port that is in use and take half of the
//! connections.

use super::log;
use super::os_error::error_text;
use crate::config::Config;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::io::{self, Write};
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// Why the server cannot listen. `Display` is the operator's line.
#[derive(Debug)]
pub enum ListenError {
    /// The addresses that failed were logged.
    Tcp {
        port: u16,
        is_tls: bool,
    },
    Unix {
        text: String,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Tcp { port, is_tls } => {
                let kind = if *is_tls { "TLS" } else { "TCP" };
                write!(f, "Failed listening on port {port} ({kind}), aborting.")
            }
            ListenError::Unix { text } => write!(f, "Failed opening Unix socket: {text}"),
        }
    }
}

impl std::error::Error for ListenError {}

/// Listens on each address of the `bind` directive: `*` is every IPv4 address, `::*` every IPv6 one, a leading `-`
/// says that the address need not exist on this machine. An address family that this machine lacks is skipped, any
/// other failure is an error and leaves nothing open. May return no socket at all.
pub fn tcp(addresses: &[String], port: u16, backlog: i32) -> Result<Vec<OwnedFd>, ListenError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let (address, optional) = match address.strip_prefix('-') {
            Some(address) => (address, true),
            None => (address.as_str(), false),
        };
        match tcp_one(address, port, backlog) {
            Ok(listener) => listeners.push(listener),
            Err(failure) => {
                log::warning(format_args!(
                    "Warning: Could not create server TCP listening socket {address}:{port}: {}",
                    failure.text
                ));
                match failure.errno {
                    Some(libc::EADDRNOTAVAIL) if optional => {}
                    Some(
                        libc::ENOPROTOOPT
                        | libc::EPROTONOSUPPORT
                        | libc::ESOCKTNOSUPPORT
                        | libc::EPFNOSUPPORT
                        | libc::EAFNOSUPPORT,
                    ) => {}
                    _ => return Err(ListenError::Tcp { port, is_tls: false }),
                }
            }
        }
    }
    Ok(listeners)
}

/// What the server is to listen on by TCP.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Those of the `bind` directive.
    pub addresses: &'a [String],
    /// 0: none.
    pub port: u16,
    /// For peers that speak TLS; 0: none.
    pub tls_port: u16,
    pub backlog: i32,
}

impl<'a> Wanted<'a> {
    /// `addresses`: those of `config.bind`, as strings.
    pub fn of(config: &Config, addresses: &'a [String]) -> Wanted<'a> {
        Wanted { addresses, port: config.port, tls_port: config.tls_port, backlog: config.tcp_backlog as i32 }
    }
}

/// Listens on both ports, on each address of the `bind` directive: see [`tcp`]. The plain sockets, and those for TLS.
pub fn both(wanted: Wanted<'_>) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>), ListenError> {
    let Wanted { addresses, port, tls_port, backlog } = wanted;
    let on = |port| if port == 0 { Ok(Vec::new()) } else { tcp(addresses, port, backlog) };
    let plain = on(port)?;
    let encrypted = on(tls_port).map_err(|_| ListenError::Tcp { port: tls_port, is_tls: true })?;
    Ok((plain, encrypted))
}

/// As [`both`], while `old` sockets of an earlier call still listen. Where one of them is in the way (the same port on
/// other addresses, or for the other purpose), they stop listening, which ends connections that nobody has accepted yet;
/// after a failure they listen again.
pub fn both_instead(
    old: &[&OwnedFd],
    wanted: Wanted<'_>,
) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>), ListenError> {
    let is_in_the_way = |socket: &&OwnedFd| {
        let port = local_port(socket);
        port.is_some_and(|port| port == wanted.port || port == wanted.tls_port)
    };
    if !old.iter().any(is_in_the_way) {
        return both(wanted);
    }
    for socket in old {
        // SAFETY: shutdown takes no pointers.
        unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) };
    }
    both(wanted).inspect_err(|_| {
        for socket in old {
            // SAFETY: listen takes no pointers.
            unsafe { libc::listen(socket.as_raw_fd(), wanted.backlog) };
        }
    })
}

/// Marks sockets for the kernel's routing and packet filters (`socket-mark-id`); 0: leaves them unmarked. That needs a
/// capability; without it, the log says so.
pub fn mark<'a>(sockets: impl IntoIterator<Item = &'a OwnedFd>, mark: u32) {
    for socket in sockets.into_iter().filter(|_| mark > 0) {
        let outcome = set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed());
        if let Err(error) = outcome {
            log::warning(format_args!("setsockopt SO_MARK: {}", error_text(&error)));
        }
    }
}

fn local_port(socket: &OwnedFd) -> Option<u16> {
    let socket = TcpListener::from(socket.try_clone().ok()?);
    socket.local_addr().ok().map(|address| address.port())
}

/// A step of making a socket, and how it failed.
struct Failure {
    text: String,
    errno: Option<i32>,
}

impl Failure {
    fn last_os_error(step: &str) -> Failure {
        let error = io::Error::last_os_error();
        Failure { text: format!("{step}{}", error_text(&error)), errno: error.raw_os_error() }
    }
}

fn tcp_one(address: &str, port: u16, backlog: i32) -> Result<OwnedFd, Failure> {
    let wants_v6 = address.contains(':');
    let address = match address {
        "*" => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        "::*" => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        name => {
            let named = (name, port).to_socket_addrs();
            let mut named = named.map_err(|error| {
                let text = error.to_string();
                // The resolver's own words, without the standard library's.
                let text = text.strip_prefix("failed to lookup address information: ").unwrap_or(&text);
                Failure { text: text.to_string(), errno: error.raw_os_error() }
            })?;
            named
                .find(|address| address.is_ipv6() == wants_v6)
                .ok_or_else(|| Failure { text: "Name or service not known".to_string(), errno: None })?
        }
    };

    let family = if address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let socket = stream_socket(family)?;
    let fd = socket.as_raw_fd();
    if address.is_ipv6() {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)
            .map_err(|_| Failure::last_os_error("setsockopt: "))?;
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)
        .map_err(|_| Failure::last_os_error("setsockopt SO_REUSEADDR: "))?;

    // SAFETY: bind reads the given length of a sockaddr of the socket's family, which lives for the call; listen
    // takes no pointers.
    unsafe {
        let bound = match address {
            SocketAddr::V4(v4) => {
                let mut name: libc::sockaddr_in = mem::zeroed();
                name.sin_family = libc::AF_INET as u16;
                name.sin_port = v4.port().to_be();
                name.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                libc::bind(fd, (&raw const name).cast(), mem::size_of_val(&name) as u32)
            }
            SocketAddr::V6(v6) => {
                let mut name: libc::sockaddr_in6 = mem::zeroed();
                name.sin6_family = libc::AF_INET6 as u16;
                name.sin6_port = v6.port().to_be();
                name.sin6_addr.s6_addr = v6.ip().octets();
                name.sin6_scope_id = v6.scope_id();
                libc::bind(fd, (&raw const name).cast(), mem::size_of_val(&name) as u32)
            }
        };
        if bound != 0 {
            return Err(Failure::last_os_error("bind: "));
        }
        if libc::listen(fd, backlog) != 0 {
            return Err(Failure::last_os_error("listen: "));
        }
    }
    Ok(socket)
}

/// Listens on a path, whose file is replaced. `perm` is the file's mode, 0 for what the umask gives.
pub fn unix(path: &str, perm: u32, backlog: i32) -> Result<OwnedFd, ListenError> {
    unix_one(path, perm, backlog).map_err(|failure| ListenError::Unix { text: failure.text })
}

fn unix_one(path: &str, perm: u32, backlog: i32) -> Result<OwnedFd, Failure> {
    // SAFETY: all-zeroes is a valid sockaddr_un.
    let mut name: libc::sockaddr_un = unsafe { mem::zeroed() };
    if path.len() >= name.sun_path.len() {
        let text =
            format!("unix socket path too long ({}), must be under {}", path.len(), name.sun_path.len());
        return Err(Failure { text, errno: None });
    }
    let c_path = CString::new(OsStr::new(path).as_bytes())
        .map_err(|_| Failure { text: "the path contains a NUL byte".to_string(), errno: None })?;
    name.sun_family = libc::AF_UNIX as u16;
    for (to, from) in name.sun_path.iter_mut().zip(c_path.as_bytes()) {
        *to = *from as libc::c_char;
    }

    let socket = stream_socket(libc::AF_UNIX)?;
    let fd = socket.as_raw_fd();
    // SAFETY: unlink and chmod read a path that ends in NUL, bind a sockaddr_un of the given length; all live for
    // the calls.
    unsafe {
        // What a server that was killed left behind. If there is nothing, bind says what else is wrong.
        libc::unlink(c_path.as_ptr());
        if libc::bind(fd, (&raw const name).cast(), mem::size_of_val(&name) as u32) != 0 {
            return Err(Failure::last_os_error("bind: "));
        }
        if perm != 0 && libc::chmod(c_path.as_ptr(), perm as libc::mode_t) != 0 {
            return Err(Failure::last_os_error("chmod: "));
        }
        if libc::listen(fd, backlog) != 0 {
            return Err(Failure::last_os_error("listen: "));
        }
    }
    Ok(socket)
}

fn stream_socket(family: i32) -> Result<OwnedFd, Failure> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointers; a non-negative result is a descriptor that nobody else owns.
    unsafe {
        let fd = libc::socket(family, kind, 0);
        if fd < 0 { Err(Failure::last_os_error("socket: ")) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn set_option(fd: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: setsockopt reads one int, which is a parameter of this function.
    let outcome = unsafe {
        libc::setsockopt(fd, level, option, (&raw const value).cast(), mem::size_of::<i32>() as u32)
    };
    if outcome != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets an accepted TCP socket up for requests and replies: no Nagle delay, and `tcp-keepalive`, that is a probe after
/// so many seconds of silence and three more within as many again (0: none). A socket whose peer is gone refuses,
/// which its driver will notice soon enough.
pub fn tune(socket: &impl AsRawFd, keepalive_s: u32) {
    let fd = socket.as_raw_fd();
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    let _ = set_keepalive(fd, keepalive_s);
}

/// Lets the system wait with small pieces for more, to send fewer packets (repl-disable-tcp-nodelay).
pub fn disable_nodelay(fd: RawFd) {
    let _ = set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 0);
}

fn set_keepalive(fd: RawFd, secs: u32) -> io::Result<()> {
    if secs == 0 {
        return Ok(());
    }
    let secs = i32::try_from(secs).unwrap_or(i32::MAX);
    set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, secs)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, (secs / 3).max(1))?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)
}

/// Two connected sockets, for connections of the process to itself.
///
/// # Errors
/// The process is out of descriptors.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = std::os::unix::net::UnixStream::pair()?;
    one.set_nonblocking(true)?;
    Ok((one.into(), other.into()))
}

/// From now on the system refuses connections to these sockets, of which other threads may have duplicates.
pub fn refuse<'a>(listeners: impl IntoIterator<Item = &'a OwnedFd>) {
    for listener in listeners {
        // SAFETY: shutting a socket down touches no memory, and the descriptor is open.
        unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// The log line for a backlog that the kernel will not grant.
pub fn backlog_warning(backlog: i32) -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?;
    let somaxconn: i32 = text.trim().parse().ok()?;
    (somaxconn > 0 && somaxconn < backlog).then(|| {
        format!(
            "WARNING: The TCP backlog setting of {backlog} cannot be enforced because \
             /proc/sys/net/core/somaxconn is set to the lower value of {somaxconn}."
        )
    })
}

/// Says a last word to a client that is not served. Best effort: it may not listen.
pub fn send_and_drop(fd: OwnedFd, reply: &[u8]) {
    let mut stream = std::net::TcpStream::from(fd);
    let _ = stream.write_all(reply);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt;

    const BACKLOG: i32 = 511;

    fn strings(addresses: &[&str]) -> Vec<String> {
        addresses.iter().map(|address| address.to_string()).collect()
    }

    /// A port that was free a moment ago.
    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn option(fd: RawFd, level: i32, option: i32) -> i32 {
        let mut value = 0i32;
        let mut len = mem::size_of::<i32>() as u32;
        // SAFETY: getsockopt writes at most one int into the local.
        assert_eq!(unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &mut len) }, 0);
        value
    }

    #[test]
    fn the_default_bind_serves_both_families_where_there_are_two() {
        let port = free_port();
        let listeners = tcp(&strings(&["*", "-::*"]), port, BACKLOG).unwrap();
        assert!(!listeners.is_empty());
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if listeners.len() == 2 {
            TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[test]
    fn tuning_sets_nodelay_and_keepalive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let fd = accepted.as_raw_fd();
        tune(&accepted, 0);
        assert_eq!(option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
        assert_eq!(option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 0);
        tune(&accepted, 300);
        assert_eq!(option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        assert_eq!(option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), 300);
        assert_eq!(option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL), 100);
        assert_eq!(option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPCNT), 3);
    }

    #[test]
    fn a_port_in_use_is_an_error_and_leaves_nothing_open() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = tcp(&strings(&["127.0.0.2", "127.0.0.1"]), port, BACKLOG).unwrap_err();
        assert_eq!(error.to_string(), format!("Failed listening on port {port} (TCP), aborting."));
        tcp(&strings(&["127.0.0.2"]), port, BACKLOG).expect("the first address was let go of");
    }

    #[test]
    fn an_address_of_another_machine_is_an_error_unless_optional() {
        // TEST-NET-1: nobody's.
        let port = free_port();
        assert!(tcp(&strings(&["192.0.2.1"]), port, BACKLOG).is_err());
        assert!(tcp(&strings(&["-192.0.2.1"]), port, BACKLOG).unwrap().is_empty());
        assert_eq!(tcp(&strings(&["-192.0.2.1", "127.0.0.1"]), port, BACKLOG).unwrap().len(), 1);
    }

    #[test]
    fn a_name_that_means_nothing_is_an_error() {
        assert!(tcp(&strings(&["no.such.host.invalid"]), free_port(), BACKLOG).is_err());
        assert!(tcp(&strings(&["localhost"]), free_port(), BACKLOG).is_ok());
    }

    #[test]
    fn other_addresses_take_a_port_over_and_a_failure_gives_it_back() {
        let [port, tls_port] = [(); 2].map(|()| free_port());
        let instead = |old: &[OwnedFd], addresses: &[&str], port, tls_port| {
            let addresses = strings(addresses);
            let wanted = Wanted { addresses: &addresses, port, tls_port, backlog: BACKLOG };
            both_instead(&old.iter().collect::<Vec<_>>(), wanted)
        };
        let old = tcp(&strings(&["127.0.0.1"]), port, BACKLOG).unwrap();

        assert!(instead(&old, &["192.0.2.1"], port, 0).is_err());
        TcpStream::connect(("127.0.0.1", port)).expect("the old socket listens again");
        let (new, none) = instead(&old, &["*"], port, 0).expect("the old socket is out of the way");
        drop(old);
        TcpStream::connect(("127.0.0.2", port)).unwrap();
        assert_eq!((new.len(), none.len()), (1, 0));

        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let error = instead(&new, &["127.0.0.1"], port, taken_port).unwrap_err();
        assert_eq!(error.to_string(), format!("Failed listening on port {taken_port} (TLS), aborting."));
        TcpStream::connect(("127.0.0.1", port)).expect("the old socket listens again");
        let (plain, encrypted) =
            instead(&new, &["127.0.0.1"], tls_port, port).expect("the port changes its purpose");
        drop(new);
        assert_eq!((plain.len(), encrypted.len()), (1, 1));
        for port in [port, tls_port] {
            TcpStream::connect(("127.0.0.1", port)).unwrap();
        }
        let (plain, encrypted) = instead(&plain, &[], port, 0).unwrap();
        assert!(plain.is_empty() && encrypted.is_empty());
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_replaces_what_is_left_of_the_last() {
        let path = std::env::temp_dir().join(format!("shardis-listener-{}", std::process::id()));
        let path = path.to_str().unwrap();
        drop(unix(path, 0o700, 511).unwrap());
        let _listener = unix(path, 0o755, 511).unwrap();
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        std::os::unix::net::UnixStream::connect(path).unwrap();
        std::fs::remove_file(path).unwrap();

        let error = unix(&format!("/tmp/{}", "x".repeat(200)), 0, 511).unwrap_err();
        assert!(error.to_string().contains("unix socket path too long (205), must be under 108"), "{error}");
        let error = unix("/no such directory/socket", 0, 511).unwrap_err();
        assert_eq!(error.to_string(), "Failed opening Unix socket: bind: No such file or directory");
    }
}
