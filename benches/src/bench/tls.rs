//! GET over TLS: CPU an operation against the peers. The floor knows no TLS, so the whole cost is judged.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};

use crate::bench::{
    CommonArgs, Contender, Lane, PipelineArgs, RoundArgs, Setup, interleaved, load_keys, settle,
};
use crate::error::{BenchError, Context, Result};
use crate::load::wire::tls_context;
use crate::load::workload::{Op, Pool, Stored};
use crate::report::{Table, Verdict, figure, grouped};
use crate::server::Server;
use crate::stats;

/// Our CPU an operation, to the best peer's, at most.
const BAR: f64 = 0.8;
const VALUE_LEN_BYTES: usize = 64;

#[derive(Args, Clone, Debug)]
pub struct TlsArgs {
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rounds: RoundArgs,
    #[command(flatten)]
    pub load: PipelineArgs,
}

/// A certificate that signs itself, in a directory that goes when it is dropped.
struct Certificate {
    dir: PathBuf,
}

impl Certificate {
    fn make() -> Result<Certificate> {
        let dir = std::env::temp_dir().join(format!("shardis-bench-tls-{}", std::process::id()));
        fs::create_dir_all(&dir).context(|| dir.display().to_string())?;
        let made = Certificate { dir };
        let (certificate, key) =
            make_pair().map_err(|error| BenchError::new(format!("making a certificate: {error}")))?;
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let path = made.dir.join(name);
            fs::write(&path, pem).context(|| path.display().to_string())?;
        }
        Ok(made)
    }

    fn path(&self, name: &str) -> String {
        Path::new(&self.dir).join(name).display().to_string()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn make_pair() -> std::result::Result<(Vec<u8>, Vec<u8>), ErrorStack> {
    let key = PKey::from_rsa(Rsa::generate(2048)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("CN", "localhost")?;
    let name = name.build();
    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_not_before(&*Asn1Time::days_from_now(0)?)?;
    certificate.set_not_after(&*Asn1Time::days_from_now(2)?)?;
    certificate.set_pubkey(&key)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    Ok((certificate.build().to_pem()?, key.private_key_to_pem_pkcs8()?))
}

pub fn run(args: &TlsArgs) -> Result<Verdict> {
    let mut setup = Setup::new(&args.common, "tls", "GET over TLS")?;
    let certificate = Certificate::make()?;
    let mut servers: Vec<(Contender, Server, SocketAddr)> = Vec::new();
    for mut contender in setup.contenders.clone() {
        let port = setup.ports.take()?;
        let cores = setup.server_cores.clone();
        let (crt, key) = (certificate.path("server.crt"), certificate.path("server.key"));
        let port_text = port.to_string();
        let extra = ["--tls-port", &port_text, "--tls-cert-file", &crt, "--tls-key-file", &key];
        contender.program.args.extend(extra.map(str::to_string));
        contender.program.args.extend(["--tls-auth-clients", "no"].map(str::to_string));
        let server = setup.start(&contender, 1, &cores)?;
        load_keys(
            &server,
            Stored::Text { len_bytes: VALUE_LEN_BYTES },
            args.rounds.keyspace,
            &setup.generator,
        )?;
        settle(&server)?;
        servers.push((contender, server, SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    }

    let context = tls_context().context(|| "a context for TLS".to_string())?;
    let pool =
        Pool::build(Op::Get, args.load.pipeline, args.rounds.keyspace, VALUE_LEN_BYTES, args.rounds.seed);
    let mut lanes = servers
        .iter()
        .map(|(_, server, address)| {
            Lane::connect_tls(server, *address, args.load.connections, &setup.generator, &context)
        })
        .collect::<Result<Vec<_>>>()?;
    let rounds = interleaved(&mut lanes, &pool, &args.rounds)?;
    drop(lanes);

    let is_peer = |at: &usize| !servers[*at].0.is_ours();
    let peers: Vec<&[f64]> =
        (0..servers.len()).filter(is_peer).map(|at| &rounds[at].cpu_us_per_op[..]).collect();
    let best_peer = stats::best_median(peers.iter().copied());
    let mut table = Table::new([
        "server",
        "ops/s",
        "CPU us/op",
        "in the kernel",
        "to best peer",
        "server busy",
        "generator busy",
        "limit",
        "bar",
        "",
    ]);
    for ((contender, server, _), rounds) in servers.iter().zip(&rounds) {
        let cost = stats::median(&rounds.cpu_us_per_op);
        let ratio = best_peer.map(|best| cost / best).filter(|_| contender.is_ours());
        let verdict = ratio.map(|ratio| Verdict::at_most(ratio, BAR));
        if let Some(verdict) = verdict {
            setup.report.verdict(&format!("GET over TLS at pipeline {}", args.load.pipeline), verdict);
        }
        table.row([
            server.program.name.clone(),
            grouped(stats::median(&rounds.ops_per_s)),
            figure(cost),
            format!("{:.0} %", stats::median(&rounds.kernel_share) * 100.0),
            ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default(),
            format!("{:.0} %", stats::median(&rounds.server_cores_busy) * 100.0),
            format!("{:.0} %", stats::median(&rounds.generator_busy) * 100.0),
            rounds.limit(setup.server_cores.len()).to_string(),
            ratio.map(|_| format!("<= {BAR}")).unwrap_or_default(),
            verdict.map(|verdict| verdict.text().to_string()).unwrap_or_default(),
        ]);
    }
    setup.report.paragraph(&format!(
        "{} connections, pipeline {}, values of {VALUE_LEN_BYTES} B, {} keys; TLS 1.3 with a certificate of RSA 2048; {} \
         rounds of {} s; medians over the rounds.",
        args.load.connections, args.load.pipeline, args.rounds.keyspace, args.rounds.rounds, args.rounds.seconds
    ));
    setup.report.table("CPU an operation, whole", &table);
    drop(servers);
    setup.report.finish(&args.common.results)
}
