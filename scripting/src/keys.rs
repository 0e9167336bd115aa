//! Which keys a script touches, told from its source.
//!
//! A script is *narrow* if every key argument of every command that it calls is visibly an element of KEYS, in whatever
//! variables that came there. The keys of others are known before they run all the same, if each of them is a literal, or made by
//! `..` of literals, elements of KEYS, and elements of ARGV that the script does not change: [`KeyTemplate`]. The proof is about
//! all runs with any arguments: no other key is touched. A script without such a proof may keep to its keys all the same; it only
//! runs slower. So whatever is not understood ends the proof, and the [`Reason`] tells the script's author what.
//!
//! Followed are local variables (also assigned ones, in any order), `KEYS[...]` with any index, ipairs and pairs over KEYS,
//! unpack(KEYS), functions of the script, their parameters and first results, and other names for `redis` and redis.call.
//! Not followed are tables other than KEYS and ARGV, and a command's name or number of keys that is computed.
//!
//! The proof relies on this of the engine: KEYS holds the declared keys alone, globals and libraries are read-only, and nothing
//! that a script can reach outlives its run, but for the variables of a library's functions.
//!
//! The parser is one of our own, because this one has to agree with Lua's to the byte. `full_moon` 3.0, a parser for tools, does
//! not end a comment at a carriage return (code that runs would be hidden), takes UTF-8 alone, overflows a stack of 8 MiB at 1,000
//! nested blocks, and takes 1.1 to 2.4 ms for a source of 5 KB; a source is analysed on the shard's thread.

mod arguments;
mod flow;
mod lexer;
mod parser;
mod syntax;
mod template;
#[cfg(test)]
mod tests;
mod values;

pub use arguments::{Begin, CallFacts, Find, KeyGroup};
use flow::{Flow, Found};
use std::fmt;
use syntax::FunctionId;
pub use template::KeyTemplate;
use template::TemplateId;

/// A longer source is not analysed.
const SOURCE_LEN_MAX: usize = 64 * 1024;

/// What the server knows of its commands.
pub trait Commands {
    /// What a call does, of whose arguments those that are literals are known; `args[0]`, the command's name, is. Unless it
    /// `is_complete`, any number of unknown arguments may follow. `None`: it may touch keys that no arguments name, or keys of
    /// another database, or select one; or nothing is known of it.
    fn facts(&self, args: &[Option<&[u8]>], is_complete: bool) -> Option<CallFacts>;
}

/// Why a script is not known to keep to its declared keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// Of the source, from 1.
    pub line: u32,
    pub what: String,
}

impl Reason {
    fn new(line: u32, what: impl Into<String>) -> Reason {
        Reason { line, what: what.into() }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// What is known of all runs of a script, or of a function of a library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyUse {
    /// `None`: its keys are known before it runs.
    pub wide: Option<Reason>,
    /// Keys that it may touch besides the declared ones.
    pub undeclared: Vec<KeyTemplate>,
    /// It may call a command that writes.
    pub may_write: bool,
    /// It may send a message to a channel.
    pub may_publish: bool,
}

impl KeyUse {
    /// Whether it keeps to its declared keys.
    pub fn is_narrow(&self) -> bool {
        self.wide.is_none() && self.undeclared.is_empty()
    }

    fn unknown(reason: Reason) -> KeyUse {
        KeyUse { wide: Some(reason), undeclared: Vec::new(), may_write: true, may_publish: true }
    }
}

/// What is known of the functions of a library.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LibraryKeyUse {
    functions: Vec<(Vec<u8>, KeyUse)>,
    other: KeyUse,
}

impl LibraryKeyUse {
    pub fn function(&self, name: &[u8]) -> &KeyUse {
        self.functions.iter().find(|(this, _)| this == name).map_or(&self.other, |(_, found)| found)
    }
}

/// Analyses a script for EVAL, with its shebang line if it has one. O(length of the source).
pub fn script_key_use(source: &[u8], commands: &dyn Commands) -> KeyUse {
    let found = analyse(source, false, commands, |flow| KeyUse {
        wide: flow
            .functions
            .iter()
            .filter_map(|found| found.reason.as_ref())
            .min_by_key(|reason| reason.line)
            .cloned(),
        undeclared: templates(flow, flow.functions.iter()),
        may_write: flow.functions.iter().any(|found| found.writes),
        may_publish: flow.functions.iter().any(|found| found.publishes),
    });
    found.unwrap_or_else(KeyUse::unknown)
}

/// Analyses the source of a library, with its shebang line. O(length of the source * its functions).
pub fn library_key_use(source: &[u8], commands: &dyn Commands) -> LibraryKeyUse {
    let functions = analyse(source, true, commands, |flow| {
        flow.registered.iter().map(|&(name, id)| (name.to_vec(), function_key_use(flow, id))).collect()
    });
    match functions {
        Ok(functions) => {
            let reason = Reason::new(1, "the call that registers the function is not understood");
            LibraryKeyUse { functions, other: KeyUse::unknown(reason) }
        }
        Err(reason) => LibraryKeyUse { functions: Vec::new(), other: KeyUse::unknown(reason) },
    }
}

/// A function may run those that it names, and those that may be called from anywhere.
fn function_key_use(flow: &Flow<'_>, id: FunctionId) -> KeyUse {
    let mut is_reached: Vec<bool> = flow.functions.iter().map(|found| found.is_escaped).collect();
    is_reached[id.0] = true;
    let mut next: Vec<usize> = (0..is_reached.len()).filter(|&at| is_reached[at]).collect();
    let mut found = KeyUse { wide: None, undeclared: Vec::new(), may_write: false, may_publish: false };
    while let Some(at) = next.pop() {
        let function = &flow.functions[at];
        found.may_write |= function.writes;
        found.may_publish |= function.publishes;
        if let Some(reason) = &function.reason
            && found.wide.as_ref().is_none_or(|earlier| reason.line < earlier.line)
        {
            found.wide = Some(reason.clone());
        }
        for mentioned in &function.mentions {
            if !std::mem::replace(&mut is_reached[mentioned.0], true) {
                next.push(mentioned.0);
            }
        }
    }
    let reached = flow.functions.iter().zip(is_reached).filter(|&(_, is_reached)| is_reached);
    found.undeclared = templates(flow, reached.map(|(function, _)| function));
    found
}

/// Of the keys of these functions' calls that are not declared: each once.
fn templates<'f>(flow: &Flow<'_>, functions: impl Iterator<Item = &'f Found<'f>>) -> Vec<KeyTemplate> {
    let mut ids: Vec<TemplateId> = Vec::new();
    for &id in functions.flat_map(|function| &function.undeclared) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids.into_iter().map(|id| flow.template(id).clone()).collect()
}

fn analyse<T>(
    source: &[u8],
    is_library: bool,
    commands: &dyn Commands,
    take: impl FnOnce(&Flow<'_>) -> T,
) -> Result<T, Reason> {
    if source.len() > SOURCE_LEN_MAX {
        return Err(Reason::new(1, "the source is too long to be analysed"));
    }
    let (code, line) = skip_shebang(source);
    let chunk = parser::parse(code, line).map_err(|refused| Reason::new(refused.line, refused.what))?;
    let flow = Flow::of(&chunk, is_library, commands);
    match &flow.leaked {
        Some(reason) => Err(reason.clone()),
        None => Ok(take(&flow)),
    }
}

/// The source without its shebang line, and the line that it begins with.
fn skip_shebang(source: &[u8]) -> (&[u8], u32) {
    if !source.starts_with(b"#!") {
        return (source, 1);
    }
    let end = source.iter().position(|&byte| byte == b'\n').unwrap_or(source.len());
    (&source[end..], 1)
}
