//! Telling whoever supervises the process how it is: systemd, by the socket that it names in `NOTIFY_SOCKET`, and upstart,
//! by stopping once.

use crate::config::Supervised;
use crate::runtime::log;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;

/// Who supervises the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Supervisor {
    Upstart,
    Systemd,
}

static SUPERVISOR: OnceLock<Supervisor> = OnceLock::new();

const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
const UPSTART_JOB: &str = "UPSTART_JOB";

/// Tells the supervisor that is asked for, or that is there, that the process has begun. To be called once.
pub fn begin(supervised: Supervised) {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    let supervisor = match supervised {
        Supervised::Upstart => Some(Supervisor::Upstart),
        Supervised::Systemd => Some(Supervisor::Systemd),
        Supervised::Auto if is_set(UPSTART_JOB) => Some(Supervisor::Upstart),
        Supervised::Auto if is_set(NOTIFY_SOCKET) => Some(Supervisor::Systemd),
        Supervised::Auto | Supervised::No => None,
    };
    match supervisor {
        Some(Supervisor::Upstart) if !is_set(UPSTART_JOB) => {
            log::warning(format_args!("upstart supervision requested, but UPSTART_JOB not found!"));
        }
        Some(Supervisor::Upstart) => {
            log::notice(format_args!("supervised by upstart, will stop to signal readiness."));
            // SAFETY: raise takes no pointers.
            unsafe { libc::raise(libc::SIGSTOP) };
            let _ = SUPERVISOR.set(Supervisor::Upstart);
        }
        Some(Supervisor::Systemd) => {
            log::warning(format_args!(
                "WARNING supervised by systemd - you MUST set appropriate values for TimeoutStartSec and \
                 TimeoutStopSec in your service unit."
            ));
            if tell_systemd("STATUS=Shardis is loading...\n") {
                let _ = SUPERVISOR.set(Supervisor::Systemd);
            }
        }
        None => {}
    }
}

/// Who supervises the process, if anybody does.
pub fn supervisor() -> Option<Supervisor> {
    SUPERVISOR.get().copied()
}

/// Clients can connect.
pub fn tell_ready() {
    if supervisor() == Some(Supervisor::Systemd) {
        tell_systemd("STATUS=Ready to accept connections\n");
        tell_systemd("READY=1\n");
    }
}

/// The process is about to end.
pub fn tell_stopping() {
    if supervisor() == Some(Supervisor::Systemd) {
        tell_systemd("STOPPING=1\n");
    }
}

/// Returns whether systemd was told.
fn tell_systemd(message: &str) -> bool {
    let Some(name) = std::env::var_os(NOTIFY_SOCKET) else {
        log::warning(format_args!("systemd supervision error: NOTIFY_SOCKET not found!"));
        return false;
    };
    let outcome = send(name.as_encoded_bytes(), message);
    if let Err(error) = &outcome {
        log::warning(format_args!("systemd supervision error: sd_notify: {error}"));
    }
    outcome.is_ok()
}

/// Sends a message to the socket of this name: a path, or, behind an `@`, one that is in no directory.
fn send(name: &[u8], message: &str) -> io::Result<()> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(String::from_utf8_lossy(name).as_ref())?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_a_socket_by_its_path_or_its_name_alone() {
        let name = format!("shardis-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&name);
        let sockets = [
            (path.to_str().expect("a plain path").to_owned(), UnixDatagram::bind(&path)),
            (
                format!("@{name}"),
                SocketAddr::from_abstract_name(&name).and_then(|address| UnixDatagram::bind_addr(&address)),
            ),
        ];
        for (name, socket) in sockets {
            let socket = socket.expect("there is room");
            send(name.as_bytes(), "READY=1\n").expect("somebody listens");
            let mut buf = [0; 64];
            let len = socket.recv(&mut buf).expect("it was sent");
            assert_eq!(&buf[..len], b"READY=1\n");
        }
        std::fs::remove_file(path).expect("ours");
        assert!(send(b"/no such directory/socket", "READY=1\n").is_err());
    }
}
