//! OpenSSL: contexts made from directives, and one engine a connection.

use super::{Acceptor, Connector, Read};
use crate::config::{Config, Text, TlsAuthClients};
use crate::runtime::os_error::error_text;
use openssl::dh::Dh;
use openssl::error::ErrorStack;
use openssl::pkey::PKey;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslStream, SslVerifyMode,
};
use openssl::x509::X509;
use std::ffi::{c_int, c_long};
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;

/// Names the sessions of this server among those that a client may offer to resume.
const SESSION_ID_CONTEXT: &[u8] = b"redis";

unsafe extern "C" {
    // Of libssl, which the crate `openssl` links; that has no name for it.
    fn SSL_CTX_set_timeout(context: *mut openssl_sys::SSL_CTX, secs: c_long) -> c_long;
}

/// Certificates, keys and rules for new connections. Does not change; all shards share it.
#[derive(Clone)]
pub struct Context {
    accepting: SslContext,
    connecting: SslContext,
}

/// A certificate with its key, as the directives name them.
struct Identity<'a> {
    certificate: &'a Text,
    key: &'a Text,
    passphrase: &'a Text,
}

impl Context {
    /// The context that the directives describe. The error is the operator's line.
    pub(super) fn new(config: &Config) -> Result<Context, String> {
        let own = Identity {
            certificate: &config.tls_cert_file,
            key: &config.tls_key_file,
            passphrase: &config.tls_key_file_pass,
        };
        if own.certificate.is_empty() {
            return Err("No tls-cert-file configured!".to_string());
        }
        if own.key.is_empty() {
            return Err("No tls-key-file configured!".to_string());
        }
        let verifies_peers =
            config.tls_auth_clients != TlsAuthClients::No || config.tls_cluster || config.tls_replication;
        if verifies_peers && config.tls_ca_cert_file.is_empty() && config.tls_ca_cert_dir.is_empty() {
            return Err("Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, \
                        tls-replication or tls-auth-clients are enabled!"
                .to_string());
        }
        let mut builder = begin(config, &own)?;
        cache_sessions(config, &mut builder)?;
        builder.set_options(SslOptions::NO_RENEGOTIATION | SslOptions::SINGLE_DH_USE);
        if config.tls_prefer_server_ciphers {
            builder.set_options(SslOptions::CIPHER_SERVER_PREFERENCE);
        }
        set_dh_params(config, &mut builder)?;

        let as_client = Identity {
            certificate: &config.tls_client_cert_file,
            key: &config.tls_client_key_file,
            passphrase: &config.tls_client_key_file_pass,
        };
        let accepting = builder.build();
        // Without a certificate for connecting, that for accepting serves both.
        let connecting = match as_client.certificate.is_empty() || as_client.key.is_empty() {
            true => accepting.clone(),
            false => begin(config, &as_client)?.build(),
        };
        Ok(Context { accepting, connecting })
    }
}

/// What contexts for accepting and for connecting have in common.
fn begin(config: &Config, identity: &Identity<'_>) -> Result<SslContextBuilder, String> {
    let unexpected = |error: ErrorStack| format!("Failed to create a TLS context: {}", first_error(&error));
    let mut builder = SslContextBuilder::new(SslMethod::tls()).map_err(unexpected)?;
    builder.set_options(refused_protocols(config)? | SslOptions::NO_COMPRESSION);
    // A record is never resumed half written, and an idle connection keeps no buffers.
    builder.set_mode(SslMode::RELEASE_BUFFERS | SslMode::ACCEPT_MOVING_WRITE_BUFFER);
    builder.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);

    let Identity { certificate, key, passphrase } = identity;
    builder.set_certificate_chain_file(readable(certificate)?).map_err(|error| {
        format!("Failed to load certificate: {}: {}", certificate.to_str_lossy(), first_error(&error))
    })?;
    let key_failed = |why: String| format!("Failed to load private key: {}: {why}", key.to_str_lossy());
    let pem = std::fs::read(key.as_path()).map_err(|error| key_failed(error_text(&error)))?;
    // The callback also where there is no passphrase: without one, OpenSSL asks the terminal.
    let pkey = PKey::private_key_from_pem_callback(&pem, |place| {
        let passphrase = passphrase.as_bytes();
        let fits = !passphrase.is_empty() && passphrase.len() <= place.len();
        if fits {
            place[..passphrase.len()].copy_from_slice(passphrase);
        }
        Ok(if fits { passphrase.len() } else { 0 })
    })
    .map_err(|error| key_failed(first_error(&error)))?;
    builder.set_private_key(&pkey).map_err(|error| key_failed(first_error(&error)))?;

    let (file, dir) = (&config.tls_ca_cert_file, &config.tls_ca_cert_dir);
    if !file.is_empty() || !dir.is_empty() {
        let path = |text| if Text::is_empty(text) { Ok(None) } else { readable(text).map(Some) };
        builder.load_verify_locations(path(file)?, path(dir)?).map_err(|error| {
            format!("Failed to configure CA certificate(s) file/directory: {}", first_error(&error))
        })?;
    }
    let ciphers = config.tls_ciphers.to_str_lossy();
    if !ciphers.is_empty() {
        builder.set_cipher_list(&ciphers).map_err(|_| format!("Failed to configure ciphers: {ciphers}"))?;
    }
    let suites = config.tls_ciphersuites.to_str_lossy();
    if !suites.is_empty() {
        builder
            .set_ciphersuites(&suites)
            .map_err(|_| format!("Failed to configure ciphersuites: {suites}"))?;
    }
    Ok(builder)
}

/// A path, for functions of the crate that panic at one that is no text.
fn readable(path: &Text) -> Result<&Path, String> {
    match path.as_path().to_str() {
        Some(_) => Ok(path.as_path()),
        None => Err(format!("The path of a TLS file is not UTF-8: {}", path.to_str_lossy())),
    }
}

/// The options that refuse every protocol that `tls-protocols` does not name. By default, those before TLS 1.2 are refused.
fn refused_protocols(config: &Config) -> Result<SslOptions, String> {
    let mut refused = SslOptions::NO_SSLV2
        | SslOptions::NO_SSLV3
        | SslOptions::NO_TLSV1
        | SslOptions::NO_TLSV1_1
        | SslOptions::NO_TLSV1_2
        | SslOptions::NO_TLSV1_3;
    let named = config.tls_protocols.to_str_lossy();
    let named = if named.is_empty() { "TLSv1.2 TLSv1.3" } else { &*named };
    for name in named.split(' ') {
        let option = match name.to_ascii_lowercase().as_str() {
            "tlsv1" => SslOptions::NO_TLSV1,
            "tlsv1.1" => SslOptions::NO_TLSV1_1,
            "tlsv1.2" => SslOptions::NO_TLSV1_2,
            "tlsv1.3" => SslOptions::NO_TLSV1_3,
            _ => {
                return Err("Invalid tls-protocols specified. Use a combination of 'TLSv1', 'TLSv1.1', \
                            'TLSv1.2' and 'TLSv1.3'."
                    .to_string());
            }
        };
        refused.remove(option);
    }
    Ok(refused)
}

fn cache_sessions(config: &Config, builder: &mut SslContextBuilder) -> Result<(), String> {
    let failed = |error: ErrorStack| format!("Failed to configure session caching: {}", first_error(&error));
    // Also without a cache: a client that verifies may offer a session of its own accord.
    builder.set_session_id_context(SESSION_ID_CONTEXT).map_err(failed)?;
    if config.tls_session_caching {
        builder.set_session_cache_mode(SslSessionCacheMode::SERVER);
        builder.set_session_cache_size(i32::try_from(config.tls_session_cache_size).unwrap_or(i32::MAX));
        // SAFETY: the builder's pointer is a live context.
        unsafe { SSL_CTX_set_timeout(builder.as_ptr(), c_long::from(config.tls_session_cache_timeout_s)) };
    } else {
        // A ticket is a session that the client keeps.
        builder.set_session_cache_mode(SslSessionCacheMode::OFF);
        builder.set_options(SslOptions::NO_TICKET);
        builder.set_num_tickets(0).map_err(failed)?;
    }
    Ok(())
}

fn set_dh_params(config: &Config, builder: &mut SslContextBuilder) -> Result<(), String> {
    if config.tls_dh_params_file.is_empty() {
        // SAFETY: the builder's pointer is a live context.
        unsafe { openssl_sys::SSL_CTX_set_dh_auto(builder.as_ptr(), c_int::from(true)) };
        return Ok(());
    }
    let path = config.tls_dh_params_file.to_str_lossy();
    let pem = std::fs::read(config.tls_dh_params_file.as_path())
        .map_err(|error| format!("Failed to load {path}: {}", error_text(&error)))?;
    let params = Dh::params_from_pem(&pem).map_err(|_| format!("{path}: failed to read DH params."))?;
    builder
        .set_tmp_dh(&params)
        .map_err(|error| format!("Failed to load DH params file: {path}: {}", first_error(&error)))
}

/// The first error as OpenSSL prints it, with its number.
fn first_error(stack: &ErrorStack) -> String {
    let Some(error) = stack.errors().first() else { return "unknown error".to_string() };
    let library = error.library().unwrap_or_default();
    let reason = error.reason().unwrap_or_default();
    format!("error:{:08X}:{library}::{reason}", error.code())
}

/// The bytes on either side of an engine: what was received and is being decrypted, and what is to be sent.
struct Wire {
    /// Only within [`Engine::with_input`]; null otherwise.
    input: *const u8,
    input_len: usize,
    output: Vec<u8>,
}

// SAFETY: the pointer is followed only within `Engine::with_input`, on the thread that has called it and lends it the bytes.
unsafe impl Send for Wire {}

impl io::Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.input_len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // SAFETY: `with_input` keeps the slice borrowed for as long as `input_len` is not 0, and what was read is taken off.
        let mut input = unsafe { std::slice::from_raw_parts(self.input, self.input_len) };
        let len = io::Read::read(&mut input, into)?;
        (self.input, self.input_len) = (input.as_ptr(), input.len());
        Ok(len)
    }
}

impl io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut self.output, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The certificate that a peer has shown.
pub struct PeerCertificate(X509);

impl PeerCertificate {
    pub fn to_pem(&self) -> Option<Vec<u8>> {
        self.0.to_pem().ok()
    }
}

/// This server's side of one encrypted connection.
pub(super) struct Engine(SslStream<Wire>);

impl Engine {
    pub(super) fn new(acceptor: &Acceptor) -> Result<Engine, String> {
        let failed = |error: ErrorStack| first_error(&error);
        let mut ssl = Ssl::new(&acceptor.context.accepting).map_err(failed)?;
        ssl.set_verify(match acceptor.auth_clients {
            TlsAuthClients::No => SslVerifyMode::NONE,
            TlsAuthClients::Optional => SslVerifyMode::PEER,
            TlsAuthClients::Yes => SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT,
        });
        ssl.set_accept_state();
        Engine::over(ssl)
    }

    /// The side that begins. The context says whom it trusts.
    pub(super) fn connecting(connector: &Connector) -> Result<Engine, String> {
        let mut ssl = Ssl::new(&connector.context.connecting).map_err(|error| first_error(&error))?;
        ssl.set_connect_state();
        Engine::over(ssl)
    }

    fn over(ssl: Ssl) -> Result<Engine, String> {
        let wire = Wire { input: std::ptr::null(), input_len: 0, output: Vec::new() };
        Ok(Engine(SslStream::new(ssl, wire).map_err(|error| first_error(&error))?))
    }

    /// Runs `work`, for which the engine has this input. What is not taken in it is lost.
    pub(super) fn with_input<T>(&mut self, bytes: &[u8], work: impl FnOnce(&mut Engine) -> T) -> T {
        /// Takes the input away again, also from under a panic.
        struct Lent<'a>(&'a mut Engine);
        impl Drop for Lent<'_> {
            fn drop(&mut self) {
                self.0.set_input(&[]);
            }
        }
        self.set_input(bytes);
        let lent = Lent(self);
        work(&mut *lent.0)
    }

    /// The stream, for an operation whose outcome must not be taken for that of an earlier one: OpenSSL judges by the
    /// thread's queue of errors, and not every function leaves it empty.
    fn stream(&mut self) -> &mut SslStream<Wire> {
        // SAFETY: both touch only this thread's queue.
        unsafe {
            if openssl_sys::ERR_peek_last_error() != 0 {
                openssl_sys::ERR_clear_error();
            }
        }
        &mut self.0
    }

    fn set_input(&mut self, bytes: &[u8]) {
        let wire = self.0.get_mut();
        (wire.input, wire.input_len) = (bytes.as_ptr(), bytes.len());
    }

    /// Goes on with the handshake. Returns whether it is complete; the error is for the log.
    pub(super) fn shake_hands(&mut self) -> Result<bool, String> {
        match self.stream().do_handshake() {
            Ok(()) => Ok(true),
            Err(error) if error.code() == ErrorCode::WANT_READ => Ok(false),
            Err(error) => Err(describe(&error)),
        }
    }

    /// After the handshake: the peer's certificate, if it was asked for one and has shown it.
    pub(super) fn peer_certificate(&self) -> Option<PeerCertificate> {
        self.0.ssl().peer_certificate().map(PeerCertificate)
    }

    /// Whether there may be more to read.
    pub(super) fn has_input(&self) -> bool {
        self.0.get_ref().input_len > 0 || self.0.ssl().pending() > 0
    }

    /// Decrypts what fits. Of [`Read::Plain`], so many bytes are initialised.
    pub(super) fn read(&mut self, into: &mut [MaybeUninit<u8>]) -> Read {
        match self.stream().ssl_read_uninit(into) {
            Ok(len) => Read::Plain(len),
            Err(error) => match error.code() {
                ErrorCode::WANT_READ => Read::NeedsMore,
                ErrorCode::ZERO_RETURN => Read::Ended,
                _ => Read::Failed(describe(&error)),
            },
        }
    }

    /// Encrypts all of `plain`, to the output.
    pub(super) fn write(&mut self, mut plain: &[u8]) -> Result<(), String> {
        while !plain.is_empty() {
            let len = self.stream().ssl_write(plain).map_err(|error| describe(&error))?;
            plain = &plain[len..];
        }
        Ok(())
    }

    /// Says to the peer that nothing more is sent, if that can be said.
    pub(super) fn end(&mut self) {
        let _ = self.stream().shutdown();
    }

    /// What is to be sent.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        &mut self.0.get_mut().output
    }
}

fn describe(error: &openssl::ssl::Error) -> String {
    match error.ssl_error() {
        Some(stack) => first_error(stack),
        None => error.to_string(),
    }
}
