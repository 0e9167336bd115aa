//! TLS, as Redis has it: what the directives say becomes a [`Context`] of OpenSSL, of which every new connection takes the
//! present one. Connections that exist keep theirs.
//!
//! ```text
//!   worker            plain bytes, as without TLS
//!     |
//!   layer::TlsLayer   a driver over a driver: decrypts what was received, encrypts what is sent
//!     |      \
//!   driver    engine  OpenSSL for one connection, between bytes in memory: it knows no socket
//!                |
//!             client  a connection that this server opens: to its master
//! ```
//!
//! So neither the drivers nor the worker know of TLS, but for which listener is encrypted. A server without encrypted
//! connections pays one branch a turn.
//!
//! OpenSSL stands behind the feature `tls`. Without it, no context can be made, and `absent` takes the engine's place.

#![cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only an engine uses it"))]

mod client;
#[cfg(not(feature = "tls"))]
#[path = "absent.rs"]
mod engine;
#[cfg(feature = "tls")]
mod engine;
mod layer;

pub use client::Client;
pub use engine::{Context, PeerCertificate};
pub use layer::TlsLayer;

use crate::config::{Config, TlsAuthClients};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Why the directives give no context. `Display` is the operator's line.
#[derive(Debug)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The process' TLS: what new connections are encrypted with.
#[derive(Default)]
pub struct Tls {
    context: Mutex<Option<Context>>,
}

impl Tls {
    /// Whether a configuration needs TLS.
    pub fn is_wanted(config: &Config) -> bool {
        config.tls_port != 0 || config.tls_replication || config.tls_cluster
    }

    pub fn is_configured(&self) -> bool {
        self.context.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Reads certificates, keys and everything else anew, for connections that come from now on.
    ///
    /// # Errors
    /// What is wrong with the directives or their files; nothing has changed then.
    pub fn configure(&self, config: &Config) -> Result<(), TlsError> {
        let context = Context::new(config).map_err(TlsError)?;
        *self.context.lock().unwrap_or_else(PoisonError::into_inner) = Some(context);
        Ok(())
    }

    /// What a connection that was just accepted is encrypted with. `None`: nothing is configured.
    pub fn acceptor(&self, auth_clients: TlsAuthClients) -> Option<Acceptor> {
        let context = self.context.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(Acceptor { context, auth_clients })
    }

    /// What a connection that this server opens is encrypted with. `None`: nothing is configured.
    pub fn connector(&self) -> Option<Connector> {
        let context = self.context.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(Connector { context })
    }
}

/// How one connection is opened: whom this server trusts, and how it names itself.
pub struct Connector {
    context: Context,
}

/// How one connection is accepted. The engine is made when its first byte comes: who only connects takes no memory for it.
pub struct Acceptor {
    context: Context,
    auth_clients: TlsAuthClients,
}

/// What an engine's reading came to.
enum Read {
    /// So many bytes.
    Plain(usize),
    /// All input was taken.
    NeedsMore,
    /// The peer has said that it sends no more.
    Ended,
    /// For the log.
    Failed(String),
}
