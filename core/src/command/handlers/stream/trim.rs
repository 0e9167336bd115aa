//! Trimming a stream: the options that XADD and XTRIM share, and XTRIM.

use super::{DELETE, ids};
use crate::command::docs::Docs;
use crate::command::table::{Command, acl, flag};
use crate::command::typed::{stream_mut, stream_of};
use crate::command::{CommandError, CommandResult, Ctx, args};
use crate::config::Config;
use crate::protocol::Argv;
use crate::shard::Shard;
use crate::shard::event::Event;
use crate::types::stream::{Log, Precision, StreamId, TrimTo};

/// The notation of the options in COMMAND DOCS.
macro_rules! trim_syntax {
    () => {
        "trim{strategy(MAXLEN | MINID@6.2.0) [operator(equal'=' | approximately'~')] threshold [LIMIT count:int@6.2.0]}"
    };
}
pub(super) use trim_syntax;

/// How a stream is to be trimmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trim {
    pub(super) to: TrimTo,
    pub(super) precision: Precision,
    /// Which argument the threshold is.
    threshold_at: usize,
}

/// The options before they are complete.
#[derive(Default)]
pub(super) struct TrimOptions {
    to: Option<(TrimTo, usize)>,
    is_approximate: bool,
    limit: Option<i64>,
}

impl TrimOptions {
    /// Reads the option at argument `at`, if it is one of them. Returns which argument follows it.
    ///
    /// # Errors
    /// Invalid values; two strategies.
    pub(super) fn parse(&mut self, args: Argv<'_>, at: usize) -> CommandResult<Option<usize>> {
        let option = args.arg(at);
        let more = args.len() - 1 - at;
        if more == 0 {
            return Ok(None);
        }
        if args::is(option, "limit") {
            let limit = args::integer(args.arg(at + 1))?;
            if limit < 0 {
                return Err(CommandError::fixed("ERR The LIMIT argument must be >= 0."));
            }
            self.limit = Some(limit);
            return Ok(Some(at + 2));
        }
        let is_len = args::is(option, "maxlen");
        if !is_len && !args::is(option, "minid") {
            return Ok(None);
        }

        if self.to.is_some() {
            return Err(CommandError::fixed(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let operator = args.arg(at + 1);
        let has_operator = more >= 2 && matches!(operator, b"~" | b"=");
        self.is_approximate = has_operator && operator == b"~";
        let threshold_at = at + 1 + usize::from(has_operator);
        let threshold = args.arg(threshold_at);
        let to = if is_len {
            let len = u64::try_from(args::integer(threshold)?);
            TrimTo::Len(len.map_err(|_| CommandError::fixed("ERR The MAXLEN argument must be >= 0."))?)
        } else {
            TrimTo::MinId(ids::strict(threshold, 0)?)
        };
        self.to = Some((to, threshold_at));
        Ok(Some(threshold_at + 1))
    }

    /// How to trim; `None`: not at all, unless it `is_required`. An effect that is replayed says exactly what was trimmed
    /// (see [`Trim::exact_threshold`]), but still has the LIMIT of its command, which no longer counts.
    ///
    /// # Errors
    /// LIMIT without a strategy, or with an exact one; no strategy.
    pub(super) fn finish(mut self, shard: &Shard, is_required: bool) -> CommandResult<Option<Trim>> {
        const LIMIT_OF_EXACT: CommandError =
            CommandError::fixed("ERR syntax error, LIMIT cannot be used without the special ~ option");
        if shard.is_replaying {
            self.limit = self.is_approximate.then_some(0);
        }
        let Some((to, threshold_at)) = self.to else {
            return match self.limit {
                Some(1..) => Err(CommandError::fixed(
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
                )),
                _ if is_required => Err(CommandError::fixed(
                    "ERR syntax error, XTRIM must be called with a trimming strategy",
                )),
                Some(_) => Err(LIMIT_OF_EXACT),
                None => Ok(None),
            };
        };
        let precision = match (self.is_approximate, self.limit) {
            (true, Some(limit)) => Precision::Nodes { limit: limit as u64 },
            (true, None) => Precision::Nodes { limit: default_limit(&shard.config) },
            (false, None) => Precision::Exact,
            (false, Some(_)) => return Err(LIMIT_OF_EXACT),
        };
        Ok(Some(Trim { to, precision, threshold_at }))
    }
}

/// How many entries are removed at most if LIMIT does not tell: those of a hundred nodes.
pub fn default_limit(config: &Config) -> u64 {
    const LIMIT_MAX: i64 = 1_000_000;
    match config.stream_node_max_entries.saturating_mul(100) {
        ..=0 => 10_000,
        limit => limit.min(LIMIT_MAX) as u64,
    }
}

impl Trim {
    /// What an effect says instead of two of the arguments, as what is near enough depends on the server: for the
    /// operator `=`, and for the threshold what the stream was trimmed to. `None`: the trim is exact.
    pub(super) fn exact_threshold(&self, log: &Log) -> Option<ExactThreshold> {
        if self.precision == Precision::Exact {
            return None;
        }
        let threshold = match self.to {
            TrimTo::Len(_) => itoa::Buffer::new().format(log.len()).as_bytes().to_vec(),
            TrimTo::MinId(_) => {
                // Nothing is left: an ID above all others, by which nothing is left elsewhere either.
                let first_id = if log.len() == 0 { StreamId::MAX } else { log.first_id() };
                first_id.text().as_bytes().to_vec()
            }
        };
        Some(ExactThreshold { threshold, at: self.threshold_at })
    }
}

/// See [`Trim::exact_threshold`].
pub(super) struct ExactThreshold {
    threshold: Vec<u8>,
    at: usize,
}

impl ExactThreshold {
    pub(super) fn write<'a>(&'a self, words: &mut [&'a [u8]]) {
        words[self.at - 1] = b"=";
        words[self.at] = &self.threshold;
    }
}

pub(super) const XTRIM: Command =
    Command::keys("xtrim", -4, xtrim).flags(flag::WRITE).acl(acl::STREAM).at(DELETE).docs(
        Docs::new("stream", "5.0.0", "Removes the first entries of a stream")
            .complexity("O(N), where N is the number of removed entries, most of them by whole nodes")
            .arguments(concat!("key#0 ", trim_syntax!()))
            .tips(&["nondeterministic_output"])
            .history(&[("6.2.0", "Strategy `MINID` and option `LIMIT`")]),
    );

/// XTRIM key (MAXLEN | MINID) [= | ~] threshold [LIMIT count]. With `~` only whole nodes are removed. Reply: integer,
/// how many entries were removed; 0 without a key. Errors: syntax; LIMIT without `~`; WRONGTYPE. O(removed nodes).
fn xtrim(ctx: &mut Ctx<'_>) -> CommandResult {
    let mut options = TrimOptions::default();
    let mut at = 2;
    while at < ctx.args.len() {
        at = options.parse(ctx.args, at)?.ok_or(CommandError::SYNTAX)?;
    }
    let trim = options.finish(ctx.shard, true)?.ok_or(CommandError::SYNTAX)?;
    let key = ctx.key(1);

    let Some(mut guard) = ctx.shard.change(ctx.call, key, Event::XTRIM) else {
        ctx.reply.integer(0);
        return Ok(());
    };
    stream_of(guard.value())?;

    let mut value = guard.value_mut();
    let mut object = value.object();
    let log = &mut stream_mut(&mut object).log;
    let removed = log.trim(trim.to, trim.precision);
    let exact = trim.exact_threshold(log).filter(|_| removed > 0);
    drop(object);
    guard.count(removed as usize);
    drop(guard);

    if let Some(exact) = exact.filter(|_| ctx.notes_effects()) {
        let mut words: Vec<&[u8]> = ctx.args.iter().collect();
        exact.write(&mut words);
        ctx.effect(&words);
    }
    ctx.reply.integer(removed as i64);
    Ok(())
}
