//! Certificates made for a test, and a client that speaks TLS byte by byte.

use crate::harness::{PATIENCE, Server, Setup, encode, free_port};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{Ssl, SslContextBuilder, SslFiletype, SslMethod, SslStream, SslVerifyMode};
use openssl::symm::Cipher;
use openssl::x509::extension::BasicConstraints;
use openssl::x509::{X509, X509Builder, X509NameBuilder};
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Now, less a day for clocks that differ.
const DAY_SECS: i64 = 86_400;

struct Identity {
    certificate: X509,
    key: PKey<Private>,
}

fn identity(name: &str, issuer: Option<&Identity>, days: std::ops::Range<i64>) -> Identity {
    static SERIAL: AtomicU32 = AtomicU32::new(1);
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("the curve");
    let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
    let subject = {
        let mut builder = X509NameBuilder::new().expect("a name");
        builder.append_entry_by_nid(Nid::COMMONNAME, name).expect("a name");
        builder.build()
    };
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() as i64;
    let time = |days: i64| Asn1Time::from_unix(now + days * DAY_SECS).expect("a time");
    let serial = BigNum::from_u32(SERIAL.fetch_add(1, Ordering::Relaxed)).expect("a number");
    let make = || {
        let mut builder = X509Builder::new()?;
        builder.set_version(2)?;
        builder.set_serial_number(&*serial.to_asn1_integer()?)?;
        builder.set_subject_name(&subject)?;
        builder.set_issuer_name(issuer.map_or(&*subject, |issuer| issuer.certificate.subject_name()))?;
        builder.set_not_before(&*time(days.start))?;
        builder.set_not_after(&*time(days.end))?;
        builder.set_pubkey(&key)?;
        if issuer.is_none() {
            builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        }
        builder.sign(issuer.map_or(&key, |issuer| &issuer.key), MessageDigest::sha256())?;
        Ok::<_, openssl::error::ErrorStack>(builder.build())
    };
    Identity { certificate: make().expect("a certificate"), key }
}

/// A directory of certificates and keys, `NAME.crt` and `NAME.key`, that goes when it is dropped:
/// `ca`; `server`, `other` and `client`, which it has signed; `expired`; and `stranger` of another authority.
pub struct Certificates {
    dir: PathBuf,
}

pub const PASSPHRASE: &str = "open sesame";

impl Certificates {
    pub fn new() -> Certificates {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("shardis-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a place for certificates");
        let certificates = Certificates { dir };
        let ca = identity("ca", None, -1..30);
        let elsewhere = identity("another ca", None, -1..30);
        certificates.write("ca", &ca);
        certificates.write("elsewhere", &elsewhere);
        for name in ["server", "other", "client"] {
            certificates.write(name, &identity(name, Some(&ca), -1..30));
        }
        certificates.write("expired", &identity("expired", Some(&ca), -30..-1));
        certificates.write("stranger", &identity("stranger", Some(&elsewhere), -1..30));
        let key = fs::read(certificates.path("server.key")).expect("it was written");
        let key = PKey::private_key_from_pem(&key).expect("a key");
        let sealed = key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), PASSPHRASE.as_bytes());
        fs::write(certificates.path("sealed.key"), sealed.expect("an encrypted key"))
            .expect("it can be written");
        certificates
    }

    fn write(&self, name: &str, identity: &Identity) {
        let certificate = identity.certificate.to_pem().expect("it has a form");
        let key = identity.key.private_key_to_pem_pkcs8().expect("it has a form");
        fs::write(self.path(&format!("{name}.crt")), certificate).expect("it can be written");
        fs::write(self.path(&format!("{name}.key")), key).expect("it can be written");
    }

    pub fn path(&self, file: &str) -> String {
        self.dir.join(file).to_str().expect("a plain path").to_string()
    }

    /// A server for both kinds of clients, with further arguments, whose files are in a directory of its own.
    pub fn start(&self, setup: Setup, extra: &[&str]) -> TlsServer {
        let port = free_port();
        let [crt, key, ca] = ["server.crt", "server.key", "ca.crt"].map(|file| self.path(file));
        let tls_port = port.to_string();
        let args = ["--tls-port", &tls_port, "--tls-cert-file", &crt, "--tls-key-file", &key];
        let data = self.path(&format!("data-{port}"));
        fs::create_dir_all(&data).expect("a place for files");
        let args = [&args[..], &["--tls-ca-cert-file", &ca, "--dir", &data], extra].concat();
        TlsServer { server: Server::start_with(setup, &args), port, ca }
    }

    /// A server that may be told to speak TLS on its port.
    pub fn serving(&self, server: Server) -> TlsServer {
        TlsServer { port: server.port, server, ca: self.path("ca.crt") }
    }

    /// How a client of this name connects; without a name, one without a certificate.
    pub fn client(&self, name: Option<&str>) -> Client {
        let pair =
            name.map(|name| [format!("{name}.crt"), format!("{name}.key")].map(|file| self.path(&file)));
        Client { pair, rules: Box::new(|_| {}) }
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub struct TlsServer {
    pub server: Server,
    /// For TLS.
    pub port: u16,
    ca: String,
}

/// How to connect.
pub struct Client {
    pair: Option<[String; 2]>,
    rules: Box<dyn Fn(&mut SslContextBuilder)>,
}

impl Client {
    /// With further rules: protocols, ciphers.
    pub fn with(self, rules: impl Fn(&mut SslContextBuilder) + 'static) -> Client {
        Client { rules: Box::new(rules), ..self }
    }

    fn ssl(&self, server: &TlsServer) -> Ssl {
        let mut builder = SslContextBuilder::new(SslMethod::tls_client()).expect("a context");
        builder.set_ca_file(&server.ca).expect("the authority");
        builder.set_verify(SslVerifyMode::PEER);
        if let Some([crt, key]) = &self.pair {
            builder.set_certificate_chain_file(crt).expect("a certificate");
            builder.set_private_key_file(key, SslFiletype::PEM).expect("its key");
        }
        (self.rules)(&mut builder);
        Ssl::new(&builder.build()).expect("a client")
    }

    /// The first bytes of a handshake.
    pub fn hello(&self, server: &TlsServer) -> Vec<u8> {
        /// Takes what is sent, and never has anything to read.
        struct Sink(Vec<u8>);
        impl Read for Sink {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
        impl Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut stream = SslStream::new(self.ssl(server), Sink(Vec::new())).expect("a stream");
        stream.connect().expect_err("nobody answers");
        stream.get_ref().0.clone()
    }

    /// The error is whatever ended the handshake.
    pub fn try_connect(&self, server: &TlsServer) -> Result<TlsConnection, String> {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let mut stream = SslStream::new(self.ssl(server), stream).expect("a stream");
        stream.connect().map_err(|error| error.to_string())?;
        Ok(TlsConnection { stream })
    }

    pub fn connect(&self, server: &TlsServer) -> TlsConnection {
        self.try_connect(server).expect("a handshake")
    }

    /// The reply to PING, or what went wrong. In TLS 1.3 a client learns from its first read that it was refused.
    pub fn ping(&self, server: &TlsServer) -> Result<String, String> {
        let mut connection = self.try_connect(server)?;
        connection.stream.write_all(b"PING\r\n").map_err(|error| error.to_string())?;
        let mut reply = [0; 7];
        connection.stream.read_exact(&mut reply).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }
}

pub struct TlsConnection {
    pub stream: SslStream<TcpStream>,
}

impl TlsConnection {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// The next so many bytes.
    pub fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).expect("so much comes");
        bytes
    }

    /// One request, whose reply must be this.
    #[track_caller]
    pub fn expect(&mut self, args: &[&str], reply: &str) {
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        self.send(&encode(&args));
        let got = self.read(reply.len());
        assert_eq!(String::from_utf8_lossy(&got), reply);
    }

    /// The line of a reply.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.read(1));
        }
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Everything up to the end of the connection, whether or not the server said close_notify before it.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// The name in the server's certificate.
    pub fn server_name(&self) -> String {
        let certificate = self.stream.ssl().peer_certificate().expect("a server has one");
        let name = certificate.subject_name().entries().next().expect("it has a name");
        name.data().to_string().expect("a plain name")
    }
}
