//! Clients. A callback knows those that are connected to the shard where it runs.

use super::fail_with;
use super::given::{Ctx, Str, server_functions};
use crate::client::Client;
use crate::modules::context::{Context, with_current};
use crate::modules::string::ModuleString;
use crate::runtime::os_error;
use crate::worker::Worker;
use shardis_modules_api::abi::*;
use shardis_modules_api::served;
use std::ffi::{c_char, c_int, c_void};

pub(super) const SERVED: &[Served] = served! {
    GetClientInfoById = get_client_info_by_id,
    GetClientNameById = get_client_name_by_id,
    GetClientUserNameById = get_client_user_name_by_id,
    SetClientNameById = set_client_name_by_id,
    GetClientCertificate = get_client_certificate,
    RedactClientCommandArgument = redact_client_command_argument,
};

/// A client, for `what`, a function of the ABI. `None`: there is none, or it is not to be known, as the error number says.
fn find<'c>(ctx: &'c mut Context<'static>, what: &str, id: u64) -> Option<&'c mut Client> {
    os_error::set(os_error::NO_ENTRY);
    client(ctx.worker_for(what)?, id)
}

fn client(worker: &mut Worker, id: u64) -> Option<&mut Client> {
    let at = worker.find_client(id)?;
    worker.connections[at].as_deref_mut().map(|connection| &mut connection.client)
}

server_functions! {
    /// Describes a client; without a place to write to, it only says whether the client is connected.
    fn get_client_info_by_id(place: *mut c_void, id: u64) -> c_int {
        let described = with_current(|ctx| {
            let runs_exec = id == ctx.call.client && ctx.runs_in_exec();
            let worker = ctx.worker_for("GetClientInfoById")?;
            let mut described = describe_client(client(worker, id)?);
            if runs_exec {
                described.flags |= REDISMODULE_CLIENTINFO_FLAG_MULTI;
            }
            Some(described)
        });
        let Some(described) = described.flatten() else { return REDISMODULE_ERR };
        // SAFETY: the module passes NULL or the place of the structure, whose version it has written.
        let Some(place) = (unsafe { place.cast::<RedisModuleClientInfo>().as_mut() }) else { return REDISMODULE_OK };
        if place.version != described.version {
            return REDISMODULE_ERR;
        }
        *place = described;
        REDISMODULE_OK
    }

    fn get_client_name_by_id(ctx: Ctx, id: u64) -> *mut RedisModuleString {
        match find(&mut ctx, "GetClientNameById", id).map(|client| client.name.clone()) {
            Some(name) if !name.is_empty() => ctx.keep_string(ModuleString::new(&name)),
            Some(_) | None => std::ptr::null_mut(),
        }
    }

    fn get_client_user_name_by_id(ctx: Ctx, id: u64) -> *mut RedisModuleString {
        match find(&mut ctx, "GetClientUserNameById", id).map(|client| client.user().name.clone()) {
            Some(user) => ctx.keep_string(ModuleString::new(&user)),
            None => std::ptr::null_mut(),
        }
    }

    fn set_client_name_by_id(id: u64, name: Str) -> c_int {
        if !name.bytes().iter().all(|byte| matches!(byte, b'!'..=b'~')) {
            return fail_with(os_error::INVALID);
        }
        let is_set = with_current(|ctx| {
            let client = find(ctx, "SetClientNameById", id)?;
            client.name = name.bytes().to_vec();
            Some(())
        });
        super::status(is_set.flatten().is_some())
    }

    /// The certificate that a client over TLS has shown, in PEM; NULL without one.
    fn get_client_certificate(ctx: Ctx, id: u64) -> *mut RedisModuleString {
        let pem = ctx.worker_for("GetClientCertificate").and_then(|worker| {
            let at = worker.find_client(id)?;
            worker.connections[at].as_deref()?.certificate.as_ref()?.to_pem()
        });
        pem.map_or(std::ptr::null_mut(), |pem| ctx.keep_string(ModuleString::new(&pem)))
    }

    /// The argument is not shown in the slow log. A command that keeps to its keys cannot ask for that.
    fn redact_client_command_argument(ctx: Ctx, position: c_int) -> c_int {
        let argument = usize::try_from(position).ok().filter(|&at| at > 0 && at < ctx.args.len());
        let argument = argument.filter(|_| ctx.program_for("RedactClientCommandArgument").is_some());
        ctx.redacted.extend(argument);
        super::status(argument.is_some())
    }
}

/// What modules are told of a client.
pub(in crate::modules) fn describe_client(client: &Client) -> RedisModuleClientInfo {
    let set = |is_set: bool, flag: u64| if is_set { flag } else { 0 };
    let (host, port) = client.addr.rsplit_once(':').unwrap_or((&client.addr, "0"));
    let mut addr: [c_char; 46] = [0; 46];
    for (place, byte) in addr.iter_mut().take(45).zip(host.bytes()) {
        *place = byte as c_char;
    }
    RedisModuleClientInfo {
        version: 1,
        flags: set(client.unix_socket, REDISMODULE_CLIENTINFO_FLAG_UNIXSOCKET)
            | set(client.tls, REDISMODULE_CLIENTINFO_FLAG_SSL)
            | set(client.multi.is_some(), REDISMODULE_CLIENTINFO_FLAG_MULTI)
            | set(client.tracking.is_some(), REDISMODULE_CLIENTINFO_FLAG_TRACKING)
            | set(client.subscriptions.is_some(), REDISMODULE_CLIENTINFO_FLAG_PUBSUB),
        id: client.id,
        addr,
        port: port.parse().unwrap_or(0),
        db: client.db as u16,
    }
}
