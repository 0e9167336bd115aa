//! The title that `ps` shows, made from proc-title-template.

use super::Config;

/// Fills in `{title}` (the program, or what it is doing), `{listen-addr}`, `{server-mode}`, `{port}`, `{tls-port}`,
/// `{unixsocket}` and `{config-file}`; `{{` is a brace. Blanks at the ends are cut. None: an unknown variable or a brace
/// that is not closed.
pub fn expand(config: &Config, title: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = config.proc_title_template.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'{' {
            out.push(byte);
        } else if let Some(after) = after.strip_prefix(b"{") {
            out.push(b'{');
            rest = after;
        } else {
            let end = after.iter().position(|&byte| byte == b'}')?;
            out.extend_from_slice(&variable(config, title, &after[..end])?);
            rest = &after[end + 1..];
        }
    }
    Some(out.trim_ascii().to_vec())
}

fn variable(config: &Config, title: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    Some(match name {
        b"title" => title.to_vec(),
        b"listen-addr" => listen_addr(config),
        // Redis shows other modes than standalone here: [cluster], [sentinel].
        b"server-mode" => Vec::new(),
        b"port" => config.port.to_string().into_bytes(),
        b"tls-port" => config.tls_port.to_string().into_bytes(),
        b"unixsocket" => config.unixsocket.as_bytes().to_vec(),
        b"config-file" => config.config_file.as_bytes().to_vec(),
        _ => return None,
    })
}

/// `address:port`, with `*` for the address unless exactly one was given; the unix socket where there is no port.
fn listen_addr(config: &Config) -> Vec<u8> {
    let port = config.shown_port();
    if port == 0 && !config.unixsocket.is_empty() {
        return config.unixsocket.as_bytes().to_vec();
    }
    let address: &[u8] = config.bind.0.first().map_or(b"*", |address| address.as_bytes());
    [address, b":", port.to_string().as_bytes()].concat()
}
