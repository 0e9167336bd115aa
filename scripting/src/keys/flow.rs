//! Follows the values of a script from where they come to where they are used.
//!
//! Every local variable, parameter and result has one [`Value`] for the whole script, which comprises whatever is bound to
//! it anywhere. The values start as [`Value::Nothing`] and only grow; walks over the script are repeated until none of them
//! changes, and what the last one found then holds for every run.
//!
//! [`Value::Other`] stands for anything but a [`Capability`]. That is why calls of what is not known do no harm: redis.call cannot
//! be among it, because the proof ends ([`Flow::leak`]) wherever a capability would become part of it. A function that becomes
//! part of it may be called with anything.
//!
//! What outlives a run is a library's: the variables that its functions share. A key of one run is none of the next, so in
//! a library no variable that a function within its function names counts as a key.

use crate::keys::Commands;
use crate::keys::Reason;
use crate::keys::arguments::{Argument, Arguments, KeyGroup};
use crate::keys::syntax::*;
use crate::keys::template::{KeyTemplate, Piece, TemplateId, Templates};
use crate::keys::values::{Builtin, Capability, Value, global, library_field, redis_field};

/// Walks over a script. Two are enough for one whose functions and variables stand before their uses.
const WALKS_MAX: usize = 8;

/// The proof has ended; [`Flow::leaked`] says why.
struct Leaked;

type Walked<T> = Result<T, Leaked>;

/// What the walks found of a function.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// Functions that it contains or names.
    pub(super) mentions: Vec<FunctionId>,
    /// Why the keys of a call of its own are not known.
    pub(super) reason: Option<Reason>,
    /// The keys of its calls that are no declared ones.
    pub(super) undeclared: Vec<TemplateId>,
    pub(super) writes: bool,
    pub(super) publishes: bool,
    /// It may be called from anywhere, with anything.
    pub(super) is_escaped: bool,
    /// Its first result, and all others.
    returns: (Value<'a>, Value<'a>),
}

pub(super) struct Flow<'a> {
    chunk: &'a Chunk<'a>,
    commands: &'a dyn Commands,
    is_library: bool,
    symbols: Vec<Value<'a>>,
    pub(super) functions: Vec<Found<'a>>,
    /// The functions that a library registers under a name that is known.
    pub(super) registered: Vec<(&'a [u8], FunctionId)>,
    templates: Templates,
    /// ARGV gets where it is not followed. Its elements may be others by then.
    has_changed_args: bool,
    /// Why nothing is known of any call.
    pub(super) leaked: Option<Reason>,
    function: FunctionId,
    line: u32,
    has_grown: bool,
}

/// The values that an expression results in.
#[derive(Clone, Copy)]
struct Values<'a> {
    first: Value<'a>,
    /// Of any number of others; `None`: there are none, and exactly one first.
    rest: Option<Value<'a>>,
}

impl<'a> Values<'a> {
    fn one(first: Value<'a>) -> Values<'a> {
        Values { first, rest: None }
    }

    fn any(value: Value<'a>) -> Values<'a> {
        Values { first: value, rest: Some(value) }
    }
}

impl<'a> Flow<'a> {
    pub(super) fn of(chunk: &'a Chunk<'a>, is_library: bool, commands: &'a dyn Commands) -> Flow<'a> {
        let mut flow = Flow {
            chunk,
            commands,
            is_library,
            symbols: vec![Value::Nothing; chunk.symbols.len()],
            functions: chunk.functions.iter().map(|_| Found::default()).collect(),
            registered: Vec::new(),
            templates: Templates::default(),
            has_changed_args: false,
            leaked: None,
            function: MAIN,
            line: 1,
            has_grown: false,
        };
        for _ in 0..WALKS_MAX {
            if !flow.walk_once() {
                return flow;
            }
        }
        flow.leaked = Some(Reason::new(1, "too many variables that depend on each other"));
        flow
    }

    /// Returns whether another walk could find more.
    fn walk_once(&mut self) -> bool {
        self.has_grown = false;
        self.registered.clear();
        for found in &mut self.functions {
            found.mentions.clear();
            found.reason = None;
            found.undeclared.clear();
            found.writes = false;
            found.publishes = false;
        }
        self.block(&self.chunk.functions[MAIN.0].body).is_ok() && self.has_grown
    }

    fn leak<T>(&mut self, why: impl Into<String>) -> Walked<T> {
        self.leaked = Some(Reason::new(self.line, why));
        Err(Leaked)
    }

    fn here(&mut self) -> &mut Found<'a> {
        &mut self.functions[self.function.0]
    }

    pub(super) fn template(&self, id: TemplateId) -> &KeyTemplate {
        self.templates.get(id)
    }

    fn lose_args(&mut self) {
        self.has_grown |= !std::mem::replace(&mut self.has_changed_args, true);
    }

    /// A value becomes one of which nothing is known.
    fn forget(&mut self, value: Value<'a>) -> Walked<()> {
        match value {
            Value::Capability(capability) => {
                self.leak(format!("{} is used in a way that is not followed", capability.name()))
            }
            Value::Function(id) if !self.functions[id.0].is_escaped => {
                self.functions[id.0].is_escaped = true;
                self.has_grown = true;
                let chunk = self.chunk;
                chunk.functions[id.0].params.iter().try_for_each(|&param| self.bind(param, Value::Other))
            }
            Value::Args | Value::ArgsIteration => {
                self.lose_args();
                Ok(())
            }
            Value::Nothing
            | Value::Literal(_)
            | Value::Key
            | Value::Made(_)
            | Value::Function(_)
            | Value::Builtin(_)
            | Value::Other => Ok(()),
        }
    }

    /// What comprises both values.
    fn join(&mut self, old: Value<'a>, new: Value<'a>) -> Walked<Value<'a>> {
        if old == new || new == Value::Nothing {
            return Ok(old);
        }
        if old == Value::Nothing {
            return Ok(new);
        }
        if self.is_key(old) && self.is_key(new) {
            return Ok(Value::Key);
        }
        self.forget(old)?;
        self.forget(new)?;
        Ok(Value::Other)
    }

    fn is_key(&self, value: Value<'a>) -> bool {
        match value {
            Value::Key => true,
            Value::Made(template) => self.templates.is_key(template),
            _ => false,
        }
    }

    fn bind(&mut self, symbol: SymbolId, value: Value<'a>) -> Walked<()> {
        let outlives_run = self.is_library && self.chunk.symbols[symbol.0].is_captured;
        let value = match value {
            Value::Key | Value::Made(_) if outlives_run => Value::Other,
            Value::Args | Value::ArgsIteration if outlives_run => {
                self.lose_args();
                Value::Other
            }
            Value::Capability(Capability::Keys | Capability::Iteration) if outlives_run => {
                return self.leak("a function within the function names its keys, and could outlive the run");
            }
            value => value,
        };
        let old = self.symbols[symbol.0];
        let joined = self.join(old, value)?;
        // Joining may have bound it too.
        if self.symbols[symbol.0] != joined {
            self.symbols[symbol.0] = joined;
            self.has_grown = true;
        }
        Ok(())
    }

    fn block(&mut self, block: &'a Block<'a>) -> Walked<()> {
        block.iter().try_for_each(|statement| {
            self.line = statement.line;
            self.statement(&statement.kind)
        })
    }

    fn statement(&mut self, statement: &'a StatementKind<'a>) -> Walked<()> {
        match statement {
            StatementKind::Local(symbols, exprs) => {
                let values = self.list(exprs, symbols.len())?;
                symbols.iter().zip(values).try_for_each(|(&symbol, value)| self.bind(symbol, value))
            }
            StatementKind::Assign(targets, exprs) => {
                let values = self.list(exprs, targets.len())?;
                targets.iter().zip(values).try_for_each(|(target, value)| self.assign(target, value))
            }
            StatementKind::Call(call) => self.values(call).map(|_| ()),
            StatementKind::Blocks(exprs, blocks) => {
                exprs.iter().try_for_each(|expr| self.value(expr).map(|_| ()))?;
                blocks.iter().try_for_each(|block| self.block(block))
            }
            StatementKind::Count(symbol, exprs, body) => {
                exprs.iter().try_for_each(|expr| self.value(expr).map(|_| ()))?;
                self.bind(*symbol, Value::Other)?;
                self.block(body)
            }
            StatementKind::Each(symbols, exprs, body) => {
                let parts = self.list(exprs, 3)?;
                let is_over_keys = parts.iter().all(|&part| part == Value::Capability(Capability::Iteration));
                let is_over_args = parts.iter().all(|&part| part == Value::ArgsIteration);
                if !is_over_keys && !is_over_args {
                    parts.into_iter().try_for_each(|part| self.forget(part))?;
                }
                for (at, &symbol) in symbols.iter().enumerate() {
                    self.bind(symbol, if is_over_keys && at > 0 { Value::Key } else { Value::Other })?;
                }
                self.block(body)
            }
            StatementKind::Return(exprs) => self.return_values(exprs),
            StatementKind::Break => Ok(()),
        }
    }

    fn return_values(&mut self, exprs: &'a [Expr<'a>]) -> Walked<()> {
        if self.function == MAIN && !self.is_library {
            // The reply.
            return exprs.iter().try_for_each(|expr| self.values(expr).map(|_| ()));
        }
        let (mut first, mut rest) = self.here().returns;
        for (at, expr) in exprs.iter().enumerate() {
            let values = self.values(expr)?;
            let joined = if at == 0 { &mut first } else { &mut rest };
            let kept = self.returned(values.first)?;
            *joined = self.join(*joined, kept)?;
            if at + 1 == exprs.len() {
                let kept = self.returned(values.rest.unwrap_or(Value::Nothing))?;
                rest = self.join(rest, kept)?;
            }
        }
        self.has_grown |= self.here().returns != (first, rest);
        self.here().returns = (first, rest);
        Ok(())
    }

    fn returned(&mut self, value: Value<'a>) -> Walked<Value<'a>> {
        self.forget(value)?;
        Ok(match value {
            Value::Nothing | Value::Literal(_) | Value::Key | Value::Made(_) => value,
            Value::Function(_)
            | Value::Builtin(_)
            | Value::Capability(_)
            | Value::Args
            | Value::ArgsIteration
            | Value::Other => Value::Other,
        })
    }

    fn assign(&mut self, target: &'a Expr<'a>, value: Value<'a>) -> Walked<()> {
        match target {
            Expr::Local(symbol) => self.bind(*symbol, value),
            Expr::Suffixed(head, suffixes) => {
                let (last, before) = suffixes.split_last().expect("the parser makes no empty ones");
                let table = self.suffixed(head, before)?.first;
                if let Value::Capability(capability) = table {
                    return self.leak(format!("{} is changed", capability.name()));
                }
                self.forget(table)?;
                if let SuffixKind::Index(index) = &last.kind {
                    self.forget_expr(index)?;
                }
                self.forget(value)
            }
            Expr::Global(name) => {
                self.leak(format!("the global {} is assigned", String::from_utf8_lossy(name)))
            }
            Expr::Nothing
            | Expr::Plain
            | Expr::Literal(_)
            | Expr::Varargs
            | Expr::Function(_)
            | Expr::Table { .. }
            | Expr::One(_)
            | Expr::Len(_)
            | Expr::Not(_)
            | Expr::Operation(_)
            | Expr::Concat(_)
            | Expr::And(_)
            | Expr::Or(_) => unreachable!("the parser lets nothing be assigned to it"),
        }
    }

    /// The first `count` values of a list of expressions. Those after them are dropped.
    fn list(&mut self, exprs: &'a [Expr<'a>], count: usize) -> Walked<Vec<Value<'a>>> {
        let mut found = Vec::with_capacity(count);
        for (at, expr) in exprs.iter().enumerate() {
            let values = self.values(expr)?;
            found.push(values.first);
            if at + 1 == exprs.len() && found.len() < count {
                found.resize(count, values.rest.unwrap_or(Value::Nothing));
            }
        }
        found.resize(count, Value::Nothing);
        Ok(found)
    }

    fn value(&mut self, expr: &'a Expr<'a>) -> Walked<Value<'a>> {
        Ok(self.values(expr)?.first)
    }

    fn forget_expr(&mut self, expr: &'a Expr<'a>) -> Walked<()> {
        let values = self.values(expr)?;
        self.forget(values.first)?;
        self.forget(values.rest.unwrap_or(Value::Nothing))
    }

    fn forget_all(&mut self, exprs: &'a [Expr<'a>]) -> Walked<()> {
        exprs.iter().try_for_each(|expr| self.forget_expr(expr))
    }

    fn values(&mut self, expr: &'a Expr<'a>) -> Walked<Values<'a>> {
        let value = match expr {
            Expr::Nothing => Value::Nothing,
            Expr::Plain => Value::Other,
            Expr::Literal(text) => Value::Literal(text),
            Expr::Varargs => return Ok(Values::any(Value::Other)),
            Expr::Function(id) => {
                let outer = std::mem::replace(&mut self.function, *id);
                let line = self.line;
                self.block(&self.chunk.functions[id.0].body)?;
                self.function = outer;
                self.line = line;
                self.here().mentions.push(*id);
                Value::Function(*id)
            }
            Expr::Table { named, other } => {
                named.iter().try_for_each(|(_, expr)| self.forget_expr(expr))?;
                self.forget_all(other)?;
                Value::Other
            }
            Expr::Local(symbol) => {
                let value = self.symbols[symbol.0];
                if let Value::Function(id) = value {
                    self.here().mentions.push(id);
                }
                value
            }
            Expr::Global(name) => match global(name, self.is_library) {
                Some(value) => value,
                None => return self.leak(format!("the global {}", String::from_utf8_lossy(name))),
            },
            Expr::One(expr) => self.value(expr)?,
            Expr::Suffixed(head, suffixes) => return self.suffixed(head, suffixes),
            Expr::Len(expr) | Expr::Not(expr) => {
                self.value(expr)?;
                Value::Other
            }
            // An operand may have metamethods, and these get the other one.
            Expr::Operation(operands) => {
                self.forget_all(operands)?;
                Value::Other
            }
            Expr::Concat(operands) => return self.concat(operands).map(Values::one),
            // One that is not the last is the result only if it is nil or false.
            Expr::And(operands) => {
                operands.iter().try_fold(Value::Nothing, |_, operand| self.value(operand))?
            }
            Expr::Or(operands) => operands.iter().try_fold(Value::Nothing, |joined, operand| {
                let value = self.value(operand)?;
                self.join(joined, value)
            })?,
        };
        Ok(Values::one(value))
    }

    /// Texts one behind the other.
    fn concat(&mut self, operands: &'a [Expr<'a>]) -> Walked<Value<'a>> {
        let mut parts = Vec::with_capacity(operands.len());
        let mut fails = false;
        for operand in operands {
            let value = self.value(operand)?;
            // It may have metamethods, and these get the others.
            self.forget(value)?;
            parts.push(match value {
                Value::Literal(text) => self.templates.literal(text),
                Value::Made(template) => Some(template),
                _ => None,
            });
            fails |= value == Value::Nothing;
        }
        let parts: Option<Vec<TemplateId>> = parts.into_iter().collect();
        let made = parts.and_then(|parts| self.templates.concat(&parts));
        Ok(match made {
            // As long as not all is known, it may yet have a value.
            _ if fails => Value::Nothing,
            Some(made) => Value::Made(made),
            None => Value::Other,
        })
    }

    /// An element of a list by its index, if that is a literal.
    fn element(&mut self, index: Option<&[u8]>, piece: fn(usize) -> Piece) -> Option<Value<'a>> {
        self.templates.element(index?, piece).map(Value::Made)
    }

    fn suffixed(&mut self, head: &'a Expr<'a>, suffixes: &'a [Suffix<'a>]) -> Walked<Values<'a>> {
        let mut values = self.values(head)?;
        for suffix in suffixes {
            self.line = suffix.line;
            values = match &suffix.kind {
                SuffixKind::Field(name) => Values::one(self.field(values.first, Some(name))?),
                SuffixKind::Index(index) => {
                    let index = self.value(index)?;
                    self.forget(index)?;
                    let name = if let Value::Literal(name) = index { Some(name) } else { None };
                    Values::one(self.field(values.first, name)?)
                }
                SuffixKind::Call(args) => self.call(values.first, args)?,
                SuffixKind::Method(args) => {
                    self.forget(values.first)?;
                    self.forget_all(args)?;
                    Values::any(Value::Other)
                }
            };
        }
        Ok(values)
    }

    /// The field of a value by a name that may be known.
    fn field(&mut self, value: Value<'a>, name: Option<&'a [u8]>) -> Walked<Value<'a>> {
        match (value, name) {
            (Value::Capability(Capability::Keys), index) => {
                Ok(self.element(index, Piece::Key).unwrap_or(Value::Key))
            }
            (Value::Args, index) => Ok(self.element(index, Piece::Arg).unwrap_or(Value::Other)),
            (Value::ArgsIteration, _) => self.forget(value).map(|()| Value::Other),
            (Value::Capability(Capability::Redis), Some(name)) => match redis_field(name) {
                Some(value) => Ok(value),
                None => self.leak(format!("redis.{}", String::from_utf8_lossy(name))),
            },
            (Value::Capability(Capability::Redis), None) => self.leak("a field of redis by a computed name"),
            (Value::Capability(_), _) => self.forget(value).map(|()| Value::Other),
            (Value::Builtin(library), Some(name)) => Ok(library_field(library, name)),
            (Value::Nothing, _) => Ok(Value::Nothing),
            (
                Value::Builtin(_)
                | Value::Literal(_)
                | Value::Key
                | Value::Made(_)
                | Value::Function(_)
                | Value::Other,
                _,
            ) => Ok(Value::Other),
        }
    }

    fn call(&mut self, callee: Value<'a>, args: &'a [Expr<'a>]) -> Walked<Values<'a>> {
        match callee {
            Value::Capability(Capability::Call) => self.command(args),
            Value::Capability(Capability::RegisterFunction) if self.is_library => self.register(args),
            Value::Builtin(Builtin::Pcall) if !args.is_empty() => {
                let function = self.value(&args[0])?;
                self.call(function, &args[1..])?;
                Ok(Values::any(Value::Other))
            }
            Value::Builtin(Builtin::Iterate | Builtin::Unpack | Builtin::Reader) => {
                let mut taken = Value::Nothing;
                if let Some((first, rest)) = args.split_first() {
                    taken = self.value(first)?;
                    // What reads them does not keep them.
                    if taken != Value::Capability(Capability::Keys) && taken != Value::Args {
                        self.forget(taken)?;
                    }
                    self.forget_all(rest)?;
                }
                let takes_keys = taken == Value::Capability(Capability::Keys);
                Ok(match callee {
                    Value::Builtin(Builtin::Iterate) if takes_keys => {
                        Values::any(Value::Capability(Capability::Iteration))
                    }
                    Value::Builtin(Builtin::Iterate) if taken == Value::Args => {
                        Values::any(Value::ArgsIteration)
                    }
                    Value::Builtin(Builtin::Unpack) if takes_keys => Values::any(Value::Key),
                    Value::Builtin(Builtin::Reader) => Values::one(Value::Other),
                    _ => Values::any(Value::Other),
                })
            }
            Value::Function(id) => self.call_function(id, args),
            Value::Nothing => {
                // It fails. As long as not all is known, something else may yet be called here.
                args.iter().try_for_each(|arg| self.value(arg).map(|_| ()))?;
                Ok(Values::any(Value::Nothing))
            }
            Value::Capability(_) => self.forget(callee).map(|()| Values::any(Value::Other)),
            Value::Builtin(_)
            | Value::Literal(_)
            | Value::Key
            | Value::Made(_)
            | Value::Args
            | Value::ArgsIteration
            | Value::Other => {
                self.forget(callee)?;
                self.forget_all(args)?;
                Ok(Values::any(Value::Other))
            }
        }
    }

    /// A call of a function of the script.
    fn call_function(&mut self, id: FunctionId, args: &'a [Expr<'a>]) -> Walked<Values<'a>> {
        let params = &self.chunk.functions[id.0].params;
        let values = self.list(args, args.len().max(params.len()))?;
        for (at, value) in values.into_iter().enumerate() {
            match params.get(at) {
                Some(&param) => self.bind(param, value)?,
                None => self.forget(value)?,
            }
        }
        let (first, rest) = self.functions[id.0].returns;
        Ok(Values { first, rest: Some(rest) })
    }

    /// redis.call and redis.pcall.
    fn command(&mut self, args: &'a [Expr<'a>]) -> Walked<Values<'a>> {
        let line = self.line;
        let arguments = self.arguments(args)?;
        let reason = match arguments.fixed.first() {
            None if arguments.tail.is_none() => None,
            Some(Argument::Literal(name)) => {
                let facts = self.commands.facts(&arguments.literals(), arguments.tail.is_none());
                self.here().writes |= facts.as_ref().is_none_or(|facts| facts.writes);
                self.here().publishes |= facts.as_ref().is_none_or(|facts| facts.publishes);
                match facts {
                    None => Some("may touch any key"),
                    Some(facts) if facts.keys.iter().all(|&group| self.knows(&arguments, group)) => None,
                    Some(_) => Some("has a key that is not made of KEYS, ARGV and literals alone"),
                }
                .map(|why| format!("{} {why}", String::from_utf8_lossy(name)))
            }
            Some(Argument::Key | Argument::Made(_) | Argument::Unknown) | None => {
                (self.here().writes, self.here().publishes) = (true, true);
                Some("the name of a command is computed".to_string())
            }
        };
        if let Some(reason) = reason {
            self.here().reason.get_or_insert(Reason::new(line, reason));
        }
        Ok(Values::one(Value::Other))
    }

    /// Whether the keys of a group are known before the script runs. Notes those that are not declared.
    fn knows(&mut self, arguments: &Arguments<'a>, group: KeyGroup) -> bool {
        let Some(undeclared) = arguments.undeclared(group) else { return false };
        undeclared.into_iter().all(|argument| {
            let template = match argument {
                Argument::Literal(text) => self.templates.literal(text),
                Argument::Made(template) => Some(template),
                Argument::Key | Argument::Unknown => None,
            };
            if let Some(template) = template
                && !self.here().undeclared.contains(&template)
            {
                self.here().undeclared.push(template);
            }
            template.is_some()
        })
    }

    fn arguments(&mut self, args: &'a [Expr<'a>]) -> Walked<Arguments<'a>> {
        let mut arguments = Arguments { fixed: Vec::with_capacity(args.len()), tail: None };
        for (at, arg) in args.iter().enumerate() {
            let values = self.values(arg)?;
            let first = self.argument(values.first)?;
            match values.rest {
                // No command accepts nil as an argument: there are no others where one is called.
                Some(rest) if at + 1 == args.len() && rest != Value::Nothing => {
                    let rest = self.argument(rest)?;
                    let are_keys = first == Argument::Key && rest == Argument::Key;
                    arguments.tail = Some(if are_keys { Argument::Key } else { Argument::Unknown });
                }
                Some(_) | None => arguments.fixed.push(first),
            }
        }
        Ok(arguments)
    }

    fn argument(&mut self, value: Value<'a>) -> Walked<Argument<'a>> {
        self.forget(value)?;
        Ok(match value {
            Value::Literal(text) => Argument::Literal(text),
            Value::Nothing | Value::Key => Argument::Key,
            Value::Made(template) if self.templates.is_key(template) => Argument::Key,
            Value::Made(template) if !(self.has_changed_args && self.templates.has_arg(template)) => {
                Argument::Made(template)
            }
            Value::Made(_)
            | Value::Function(_)
            | Value::Builtin(_)
            | Value::Capability(_)
            | Value::Args
            | Value::ArgsIteration
            | Value::Other => Argument::Unknown,
        })
    }

    /// redis.register_function, with a name and a function or with a table of named arguments.
    fn register(&mut self, args: &'a [Expr<'a>]) -> Walked<Values<'a>> {
        let (mut name, mut function) = (Value::Nothing, Value::Nothing);
        if let [Expr::Table { named, other }] = args {
            for (field, expr) in named {
                let value = self.value(expr)?;
                match *field {
                    b"function_name" => name = value,
                    b"callback" => function = value,
                    _ => self.forget(value)?,
                }
            }
            self.forget_all(other)?;
        } else {
            let values = self.list(args, args.len().max(2))?;
            (name, function) = (values[0], values[1]);
            values[2..].iter().try_for_each(|&value| self.forget(value))?;
        }
        self.forget(name)?;
        let Value::Function(id) = function else {
            self.forget(function)?;
            return Ok(Values::any(Value::Other));
        };
        for (at, &param) in self.chunk.functions[id.0].params.iter().enumerate() {
            let passed = match at {
                0 => Value::Capability(Capability::Keys),
                1 => Value::Args,
                _ => Value::Nothing,
            };
            self.bind(param, passed)?;
        }
        if let Value::Literal(name) = name {
            self.registered.push((name, id));
        }
        Ok(Values::any(Value::Other))
    }
}
