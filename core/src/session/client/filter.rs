//! Which clients CLIENT LIST and CLIENT KILL mean.

use crate::client::{Client, ClientId};
use crate::command::args;
use crate::command::{CommandError, CommandResult};
use crate::protocol::number::parse_i64;
use crate::protocol::{Argv, until_nul};

/// A class of clients, as TYPE names it. The server's connection to its master is none of a shard's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientType {
    Normal,
    Master,
    Replica,
    PubSub,
}

fn parse_type(name: &[u8]) -> CommandResult<ClientType> {
    match until_nul(name).to_ascii_lowercase().as_slice() {
        b"normal" => Ok(ClientType::Normal),
        b"master" => Ok(ClientType::Master),
        b"slave" | b"replica" => Ok(ClientType::Replica),
        b"pubsub" => Ok(ClientType::PubSub),
        _ => Err(CommandError::quoting("ERR Unknown client type '", name, "'")),
    }
}

fn type_of(client: &Client) -> ClientType {
    match client {
        _ if client.is_replica() => ClientType::Replica,
        _ if client.subscriptions.is_some() => ClientType::PubSub,
        _ => ClientType::Normal,
    }
}

/// What CLIENT LIST shows.
#[derive(PartialEq, Eq, Debug)]
pub enum ListFilter {
    All,
    Type(ClientType),
    Ids(Vec<i64>),
}

impl ListFilter {
    /// Reads CLIENT LIST's arguments.
    pub fn parse(args: Argv<'_>) -> CommandResult<ListFilter> {
        if args.len() == 2 {
            return Ok(ListFilter::All);
        }
        let option = args.arg(2);
        if args::is(option, "type") && args.len() == 4 {
            return parse_type(args.arg(3)).map(ListFilter::Type);
        }
        if args::is(option, "id") && args.len() > 3 {
            let ids = args.iter().skip(3).map(parse_i64).collect::<Option<Vec<_>>>();
            return ids.map(ListFilter::Ids).ok_or(CommandError::fixed("ERR Invalid client ID"));
        }
        Err(CommandError::SYNTAX)
    }

    pub fn takes(&self, client: &Client) -> bool {
        match self {
            ListFilter::All => true,
            ListFilter::Type(class) => *class == type_of(client),
            ListFilter::Ids(ids) => ids.contains(&(client.id as i64)),
        }
    }
}

/// What CLIENT KILL kills: all that every given filter takes.
#[derive(Debug)]
pub struct KillFilter<'a> {
    id: Option<i64>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    class: Option<ClientType>,
    /// There must be a user of this name.
    pub user: Option<&'a [u8]>,
    skip_me: bool,
    /// `CLIENT KILL addr`, which must find a client, and answers OK.
    pub is_old_form: bool,
}

impl<'a> KillFilter<'a> {
    /// Reads CLIENT KILL's arguments.
    pub fn parse(args: Argv<'a>) -> CommandResult<KillFilter<'a>> {
        let mut filter = KillFilter {
            id: None,
            addr: None,
            laddr: None,
            class: None,
            user: None,
            skip_me: true,
            is_old_form: false,
        };
        if args.len() == 3 {
            filter.addr = Some(args.arg(2));
            filter.skip_me = false;
            filter.is_old_form = true;
            return Ok(filter);
        }
        for pair in (2..args.len()).step_by(2) {
            let value = args.get(pair + 1).ok_or(CommandError::SYNTAX)?;
            match until_nul(args.arg(pair)).to_ascii_lowercase().as_slice() {
                b"id" => {
                    let id = parse_i64(value).filter(|&id| id > 0);
                    filter.id =
                        Some(id.ok_or(CommandError::fixed("ERR client-id should be greater than 0"))?);
                }
                b"addr" => filter.addr = Some(value),
                b"laddr" => filter.laddr = Some(value),
                b"type" => filter.class = Some(parse_type(value)?),
                b"user" => filter.user = Some(value),
                b"skipme" if args::is(value, "yes") => filter.skip_me = true,
                b"skipme" if args::is(value, "no") => filter.skip_me = false,
                _ => return Err(CommandError::SYNTAX),
            }
        }
        Ok(filter)
    }

    /// Whether the client is meant; `caller` is the one who says it.
    pub fn takes(&self, client: &Client, caller: ClientId) -> bool {
        self.id.is_none_or(|id| id as u64 == client.id)
            && self.addr.is_none_or(|addr| addr == client.addr.as_bytes())
            && self.laddr.is_none_or(|laddr| laddr == client.laddr.as_bytes())
            && self.class.is_none_or(|class| class == type_of(client))
            && self.user.is_none_or(|user| user == client.user().name)
            && !(self.skip_me && client.id == caller)
    }

    /// Whether the master is meant, to which this server is connected: from the second of these addresses to the first.
    pub fn takes_master(&self, (addr, laddr): &(String, String)) -> bool {
        self.id.is_none()
            && self.addr.is_none_or(|wanted| wanted == addr.as_bytes())
            && self.laddr.is_none_or(|wanted| wanted == laddr.as_bytes())
            && self.class.is_none_or(|class| class == ClientType::Master)
            && self.user.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OwnedArgv;

    fn kill_error(args: &[&str]) -> String {
        let args = OwnedArgv::from_slices(args);
        KillFilter::parse(args.as_argv()).err().map_or(String::new(), |error| error.text().to_string())
    }

    #[test]
    fn kill_refuses_bad_filters_with_the_errors_of_redis() {
        assert_eq!(kill_error(&["CLIENT", "KILL", "ID", "10", "x"]), "ERR syntax error");
        assert_eq!(kill_error(&["CLIENT", "KILL", "ID", "0"]), "ERR client-id should be greater than 0");
        assert_eq!(kill_error(&["CLIENT", "KILL", "ID", "str"]), "ERR client-id should be greater than 0");
        assert_eq!(kill_error(&["CLIENT", "KILL", "TYPE", "x"]), "ERR Unknown client type 'x'");
        assert_eq!(kill_error(&["CLIENT", "KILL", "SKIPME", "perhaps"]), "ERR syntax error");
    }

    #[test]
    fn kill_spares_its_caller_unless_told_otherwise() {
        let mut client = Client::new(3, 0, true);
        client.addr = "1.2.3.4:5".to_string();
        let takes = |args: &[&str], caller| {
            let args = OwnedArgv::from_slices(args);
            KillFilter::parse(args.as_argv()).unwrap().takes(&client, caller)
        };

        assert!(!takes(&["CLIENT", "KILL", "ID", "3"], 3));
        assert!(takes(&["CLIENT", "KILL", "ID", "3"], 4));
        assert!(takes(&["CLIENT", "KILL", "ID", "3", "SKIPME", "no"], 3));
        assert!(takes(&["CLIENT", "KILL", "1.2.3.4:5"], 3));
        assert!(!takes(&["CLIENT", "KILL", "1.2.3.4:6"], 4));
        assert!(!takes(&["CLIENT", "KILL", "ADDR", "1.2.3.4:5", "TYPE", "pubsub"], 4));
        assert!(takes(&["CLIENT", "KILL", "ADDR", "1.2.3.4:5", "TYPE", "normal", "USER", "default"], 4));
    }

    #[test]
    fn kill_means_the_master_by_its_address_or_its_class() {
        let ends = ("10.0.0.1:6379".to_owned(), "10.0.0.2:50000".to_owned());
        let takes = |args: &[&str]| {
            KillFilter::parse(OwnedArgv::from_slices(args).as_argv()).unwrap().takes_master(&ends)
        };

        assert!(takes(&["CLIENT", "KILL", "10.0.0.1:6379"]));
        assert!(!takes(&["CLIENT", "KILL", "10.0.0.2:50000"]));
        assert!(takes(&["CLIENT", "KILL", "TYPE", "master", "LADDR", "10.0.0.2:50000"]));
        assert!(!takes(&["CLIENT", "KILL", "TYPE", "normal"]) && !takes(&["CLIENT", "KILL", "ID", "1"]));
    }

    #[test]
    fn list_takes_one_option() {
        let parse = |args: &[&str]| ListFilter::parse(OwnedArgv::from_slices(args).as_argv());

        assert_eq!(parse(&["CLIENT", "LIST"]), Ok(ListFilter::All));
        assert_eq!(parse(&["CLIENT", "LIST", "type", "Slave"]), Ok(ListFilter::Type(ClientType::Replica)));
        assert_eq!(parse(&["CLIENT", "LIST", "ID", "3", "0"]), Ok(ListFilter::Ids(vec![3, 0])));
        assert_eq!(parse(&["CLIENT", "LIST", "ID"]), Err(CommandError::SYNTAX));
        assert_eq!(parse(&["CLIENT", "LIST", "TYPE", "normal", "x"]), Err(CommandError::SYNTAX));
        assert_eq!(parse(&["CLIENT", "LIST", "ID", "x"]).unwrap_err().text(), "ERR Invalid client ID");
    }
}
