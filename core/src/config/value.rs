//! What a directive's value may be: booleans, bounded integers, memory sizes, words of a fixed list, texts.
//!
//! A field of `Config` has a type, and the type knows how to read its value from a directive's arguments, how
//! CONFIG GET shows it and what lines CONFIG REWRITE writes for it. The row of the table adds the bounds. Values
//! that are more than one word (save points, buffer limits, ...) are in `special.rs`.
//!
//! Redis reads most values as C strings: what stands behind a NUL is not seen. Only integers and passwords are read in
//! their whole length.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::protocol::inline::quote;
use crate::protocol::number::parse_i64;
use crate::protocol::until_nul;

/// Why a value was refused, in Redis' words.
pub type Why = Cow<'static, str>;

/// The bounds and the notation of a row's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything there is to know is in the field's type.
    ByType,
    /// A text in which a NUL is a byte like any other.
    Bytes,
    /// A decimal integer.
    Int { min: i128, max: i128 },
    /// A number of bytes: decimal digits, then nothing, `b`, `k`, `kb`, `m`, `mb`, `g` or `gb`.
    Memory { min: i128, max: i128 },
    /// File permissions.
    Octal { max: i128 },
}

/// Where a value comes from. The same words mean different things to the directives that accumulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file or the command line; `first`: this directive's first line there.
    Load { first: bool },
    /// CONFIG SET.
    Set,
}

/// The value of a directive.
pub trait Value: Sized {
    /// Takes the value from a directive's arguments. `args` has exactly one element unless the directive takes
    /// several. Errors: Redis' text for the operator or client; `self` is then unchanged.
    fn assign(&mut self, kind: Kind, args: &[&[u8]], origin: Origin) -> Result<(), Why>;

    /// What CONFIG GET answers.
    fn show(&self, kind: Kind) -> Vec<u8>;

    /// The configuration lines, less the directive's name, that make this value; none where the value is the
    /// absence of lines.
    fn lines(&self, kind: Kind) -> Vec<Vec<u8>> {
        vec![self.show(kind)]
    }
}

impl Value for bool {
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        let word = until_nul(args[0]);
        *self = if word.eq_ignore_ascii_case(b"yes") {
            true
        } else if word.eq_ignore_ascii_case(b"no") {
            false
        } else {
            return Err("argument must be 'yes' or 'no'".into());
        };
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        if *self { b"yes".to_vec() } else { b"no".to_vec() }
    }
}

macro_rules! integer_value {
    ($($int:ty),*) => {$(
        impl Value for $int {
            fn assign(&mut self, kind: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
                let number = parse_bounded(kind, args[0])?;
                *self = <$int>::try_from(number).expect("a row's bounds fit its field's type");
                Ok(())
            }

            fn show(&self, kind: Kind) -> Vec<u8> {
                show_integer(kind, i128::from(*self))
            }

            fn lines(&self, kind: Kind) -> Vec<Vec<u8>> {
                vec![match kind {
                    Kind::Memory { .. } => memory_with_unit(i128::from(*self)).into_bytes(),
                    Kind::ByType | Kind::Bytes | Kind::Int { .. } | Kind::Octal { .. } => self.show(kind),
                }]
            }
        }
    )*};
}

integer_value!(u16, u32, u64, i32, i64);

fn parse_bounded(kind: Kind, text: &[u8]) -> Result<i128, Why> {
    let (number, min, max) = match kind {
        Kind::Int { min, max } => {
            (parse_i64(text).map(i128::from).ok_or("argument couldn't be parsed into an integer")?, min, max)
        }
        Kind::Memory { min, max } => {
            (parse_memory(text).map(i128::from).ok_or("argument must be a memory value")?, min, max)
        }
        Kind::Octal { max } => {
            (parse_octal(text).ok_or("argument couldn't be parsed as an octal number")?, 0, max)
        }
        Kind::ByType | Kind::Bytes => unreachable!("integers are declared with bounds"),
    };
    if (min..=max).contains(&number) {
        return Ok(number);
    }
    Err(match kind {
        Kind::Octal { .. } => format!("argument must be between {min:o} and {max:o} inclusive"),
        _ => format!("argument must be between {min} and {max} inclusive"),
    }
    .into())
}

fn show_integer(kind: Kind, number: i128) -> Vec<u8> {
    match kind {
        Kind::Octal { .. } => format!("{number:o}").into_bytes(),
        Kind::ByType | Kind::Bytes | Kind::Int { .. } | Kind::Memory { .. } => {
            number.to_string().into_bytes()
        }
    }
}

/// A number of bytes in Redis' notation: `k`, `m`, `g` are powers of 1000, `kb`, `mb`, `gb` of 1024, in any case;
/// no digits at all count as zero. As in Redis, digits beyond 64 bits are the greatest number, the product with the
/// unit keeps its lower 64 bits, and there are less than 128 digits. None: another unit, a sign, too many digits.
pub fn parse_memory(text: &[u8]) -> Option<u64> {
    const DIGITS_MAX: usize = 127;
    let text = until_nul(text);
    let digits_len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, unit) = text.split_at(digits_len);
    let factor: u64 = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    if digits_len > DIGITS_MAX {
        return None;
    }
    let with_digit = |number: u64, digit: &u8| number.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    let number = digits.iter().try_fold(0, with_digit).unwrap_or(u64::MAX);
    Some(number.wrapping_mul(factor))
}

/// The biggest binary unit that divides `bytes`, which is how CONFIG REWRITE writes sizes.
pub(super) fn memory_with_unit(bytes: i128) -> String {
    for (shift, unit) in [(30, "gb"), (20, "mb"), (10, "kb")] {
        if bytes != 0 && bytes % (1 << shift) == 0 {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

fn parse_octal(text: &[u8]) -> Option<i128> {
    let text = text.trim_ascii_start();
    let (sign, digits) = match text.split_first()? {
        (b'-', rest) => (-1, rest),
        (b'+', rest) => (1, rest),
        _ => (1, text),
    };
    // 20 octal digits stay below i128's end whatever they are; what is longer is out of every row's bounds.
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    Some(sign * digits.iter().fold(0, |number, digit| number * 8 + i128::from(digit - b'0')))
}

/// A text as it was given: a path, a password, a name. Any bytes; empty also stands for "not set".
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Text(Box<[u8]>);

impl Text {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For messages: bytes that are not UTF-8 are replaced.
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(text.as_bytes().into())
    }
}

impl From<&[u8]> for Text {
    fn from(text: &[u8]) -> Text {
        Text(text.into())
    }
}

impl From<&Path> for Text {
    fn from(path: &Path) -> Text {
        Text(path.as_os_str().as_bytes().into())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_str_lossy(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_str_lossy())
    }
}

impl Value for Text {
    fn assign(&mut self, kind: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        *self = Text::from(if kind == Kind::Bytes { args[0] } else { until_nul(args[0]) });
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        self.0.to_vec()
    }

    fn lines(&self, _: Kind) -> Vec<Vec<u8>> {
        vec![quote(&self.0)]
    }
}

/// The error for a word that is not in its directive's list.
pub(super) fn not_one_of(words: &[&str]) -> Why {
    format!("argument(s) must be one of the following: {}", words.join(", ")).into()
}

/// Declares an enum whose variants are the words of a directive, matched in any case.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl $crate::config::value::Value for $name {
            fn assign(
                &mut self,
                _: $crate::config::value::Kind,
                args: &[&[u8]],
                _: $crate::config::value::Origin,
            ) -> Result<(), $crate::config::value::Why> {
                let word = $crate::protocol::until_nul(args[0]);
                $(if word.eq_ignore_ascii_case($word.as_bytes()) {
                    *self = $name::$variant;
                    return Ok(());
                })+
                Err($crate::config::value::not_one_of(Self::WORDS))
            }

            fn show(&self, _: $crate::config::value::Kind) -> Vec<u8> {
                self.as_str().as_bytes().to_vec()
            }
        }
    };
}

words! {
    /// Who may use what enable-protected-configs, enable-debug-command and enable-module-command guard.
    pub enum ProtectedAccess {
        No = "no",
        Yes = "yes",
        /// Clients of the loopback interface and of the unix socket.
        Local = "local",
    }
}

words! {
    /// Who waits for a program that is over busy-reply-threshold.
    pub enum BusyScriptScope {
        /// All commands are refused, as Redis does.
        Server = "server",
        /// Those that need its keys wait.
        Keys = "keys",
    }
}

words! {
    pub enum LogLevel {
        Debug = "debug",
        Verbose = "verbose",
        Notice = "notice",
        Warning = "warning",
    }
}

words! {
    pub enum MaxmemoryPolicy {
        VolatileLru = "volatile-lru",
        VolatileLfu = "volatile-lfu",
        VolatileRandom = "volatile-random",
        VolatileTtl = "volatile-ttl",
        AllkeysLru = "allkeys-lru",
        AllkeysLfu = "allkeys-lfu",
        AllkeysRandom = "allkeys-random",
        Noeviction = "noeviction",
    }
}

words! {
    pub enum AppendFsync {
        Everysec = "everysec",
        Always = "always",
        No = "no",
    }
}

words! {
    pub enum Supervised {
        Upstart = "upstart",
        Systemd = "systemd",
        Auto = "auto",
        No = "no",
    }
}

words! {
    pub enum SyslogFacility {
        User = "user",
        Local0 = "local0",
        Local1 = "local1",
        Local2 = "local2",
        Local3 = "local3",
        Local4 = "local4",
        Local5 = "local5",
        Local6 = "local6",
        Local7 = "local7",
    }
}

words! {
    pub enum ReplDisklessLoad {
        Disabled = "disabled",
        OnEmptyDb = "on-empty-db",
        Swapdb = "swapdb",
    }
}

words! {
    pub enum AclPubsubDefault {
        AllChannels = "allchannels",
        ResetChannels = "resetchannels",
    }
}

words! {
    pub enum SanitizeDumpPayload {
        No = "no",
        Yes = "yes",
        Clients = "clients",
    }
}

words! {
    pub enum ClusterEndpointType {
        Ip = "ip",
        Hostname = "hostname",
        UnknownEndpoint = "unknown-endpoint",
    }
}

words! {
    pub enum PropagationErrorBehavior {
        Ignore = "ignore",
        Panic = "panic",
        PanicOnReplicas = "panic-on-replicas",
    }
}

/// What happens when a command of the master, or of an append-only file, fails.
#[derive(Clone, Copy, Debug)]
pub struct PropagationErrors {
    pub behavior: PropagationErrorBehavior,
    /// Somebody wants it so. If nobody has said anything, a command of the master that this server does not know ends the link.
    pub is_chosen: bool,
}

/// The value that is shown and written counts.
impl PartialEq for PropagationErrors {
    fn eq(&self, other: &PropagationErrors) -> bool {
        self.behavior == other.behavior
    }
}

impl Eq for PropagationErrors {}

impl Value for PropagationErrors {
    fn assign(&mut self, kind: Kind, args: &[&[u8]], origin: Origin) -> Result<(), Why> {
        self.behavior.assign(kind, args, origin)?;
        self.is_chosen = true;
        Ok(())
    }

    fn show(&self, kind: Kind) -> Vec<u8> {
        self.behavior.show(kind)
    }
}

words! {
    pub enum TlsAuthClients {
        No = "no",
        Yes = "yes",
        Optional = "optional",
    }
}

words! {
    /// Which kernel interface moves the bytes; `auto` takes io_uring where the kernel allows it.
    pub enum IoBackend {
        Auto = "auto",
        Uring = "uring",
        Epoll = "epoll",
    }
}

/// How the oom_score_adj of this process is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomScoreAdj {
    /// Not at all: the score the process started with is restored.
    No,
    /// The values of oom-score-adj-values are added to the score the process started with.
    Relative,
    /// They are the score.
    Absolute,
}

impl Value for OomScoreAdj {
    fn assign(&mut self, _: Kind, args: &[&[u8]], _: Origin) -> Result<(), Why> {
        *self = match until_nul(args[0]).to_ascii_lowercase().as_slice() {
            b"no" => OomScoreAdj::No,
            b"yes" | b"relative" => OomScoreAdj::Relative,
            b"absolute" => OomScoreAdj::Absolute,
            _ => return Err(not_one_of(&["no", "yes", "relative", "absolute"])),
        };
        Ok(())
    }

    fn show(&self, _: Kind) -> Vec<u8> {
        match self {
            OomScoreAdj::No => b"no".to_vec(),
            // The first of its two names, as in Redis.
            OomScoreAdj::Relative => b"yes".to_vec(),
            OomScoreAdj::Absolute => b"absolute".to_vec(),
        }
    }
}
