//! Parses Lua 5.1 into what the analysis needs.
//!
//! Recursion ends where Lua's own parser ends it, and chains (`a.b.c`, `1 + 2 + 3`) are flat, so that neither this parser nor a
//! walk over its result needs more stack than [`DEPTH_MAX`] nested constructs do. What Lua refuses may pass here (a goto, a
//! break outside of a loop), because it never runs; what Lua accepts is understood in its way, or refused. Source: lparser.c
//! of Lua 5.1.5.

use crate::keys::lexer::{Lexer, Refused, Token, Word};
use crate::keys::syntax::*;

/// Nested constructs. Lua itself has the same limit (LUAI_MAXCCALLS).
const DEPTH_MAX: usize = 200;

/// Binds tighter than each binary operator but `^`.
const UNARY_PRIORITY: u8 = 8;

/// Local variables that can be named at one place. Lua allows each function 200; the limit here keeps looking for one cheap.
const SCOPE_LEN_MAX: usize = 300;

/// An integer of more digits may be another as a Lua number.
const EXACT_DIGITS_MAX: usize = 15;

pub(super) fn parse(source: &[u8], first_line: u32) -> Parsed<Chunk<'_>> {
    let mut lexer = Lexer::new(source, first_line);
    let token = lexer.next()?;
    let line = lexer.line;
    let mut parser =
        Parser { lexer, token, line, depth: 0, chunk: Chunk::default(), scope: Vec::new(), function: MAIN };
    parser.chunk.functions.push(Function::default());
    let body = parser.block()?;
    if parser.token != Token::End {
        return parser.refuse("an unexpected word or sign");
    }
    parser.chunk.functions[MAIN.0].body = body;
    Ok(parser.chunk)
}

struct Parser<'s> {
    lexer: Lexer<'s>,
    token: Token<'s>,
    /// Of `token`.
    line: u32,
    depth: usize,
    chunk: Chunk<'s>,
    /// The local variables that can be named here, the innermost last.
    scope: Vec<(&'s [u8], SymbolId)>,
    function: FunctionId,
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Operation,
    Concat,
    And,
    Or,
}

impl<'s> Parser<'s> {
    fn refuse<T>(&self, what: &'static str) -> Parsed<T> {
        Err(Refused { line: self.line, what })
    }

    fn advance(&mut self) -> Parsed<Token<'s>> {
        let next = self.lexer.next()?;
        self.line = self.lexer.line;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(this) if this == sign)
    }

    fn take_sign(&mut self, sign: &str) -> Parsed<bool> {
        let is = self.is_sign(sign);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn need_sign(&mut self, sign: &str) -> Parsed<()> {
        if self.take_sign(sign)? { Ok(()) } else { self.refuse("a missing sign") }
    }

    fn take_word(&mut self, word: Word) -> Parsed<bool> {
        let is = self.token == Token::Word(word);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn need_word(&mut self, word: Word) -> Parsed<()> {
        if self.take_word(word)? { Ok(()) } else { self.refuse("a missing word") }
    }

    fn need_name(&mut self) -> Parsed<&'s [u8]> {
        match self.advance()? {
            Token::Name(name) => Ok(name),
            Token::Word(_) | Token::Number(_) | Token::Text(_) | Token::Sign(_) | Token::End => {
                self.refuse("a missing name")
            }
        }
    }

    fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { self.refuse("too many nested levels") } else { Ok(()) }
    }

    fn declare(&mut self, name: &'s [u8]) -> Parsed<SymbolId> {
        if self.scope.len() == SCOPE_LEN_MAX {
            return self.refuse("too many local variables");
        }
        let symbol = SymbolId(self.chunk.symbols.len());
        self.chunk.symbols.push(Symbol { owner: self.function, is_captured: false });
        self.scope.push((name, symbol));
        Ok(symbol)
    }

    fn resolve(&mut self, name: &'s [u8]) -> Expr<'s> {
        let Some(&(_, id)) = self.scope.iter().rev().find(|(this, _)| *this == name) else {
            return Expr::Global(name);
        };
        let symbol = &mut self.chunk.symbols[id.0];
        symbol.is_captured |= symbol.owner != self.function;
        Expr::Local(id)
    }

    /// Statements up to a word that ends a block, in a scope of their own.
    fn block(&mut self) -> Parsed<Block<'s>> {
        let outer_len = self.scope.len();
        let block = self.statements()?;
        self.scope.truncate(outer_len);
        Ok(block)
    }

    fn statements(&mut self) -> Parsed<Block<'s>> {
        self.enter()?;
        let mut block = Vec::new();
        while !self.is_block_end() {
            let line = self.line;
            let is_last = matches!(self.token, Token::Word(Word::Return | Word::Break));
            let kind = self.statement()?;
            block.push(Statement { line, kind });
            self.take_sign(";")?;
            if is_last {
                break;
            }
        }
        self.depth -= 1;
        Ok(block)
    }

    fn is_block_end(&self) -> bool {
        matches!(self.token, Token::End | Token::Word(Word::Else | Word::Elseif | Word::End | Word::Until))
    }

    fn statement(&mut self) -> Parsed<StatementKind<'s>> {
        let Token::Word(word) = self.token else { return self.expression_statement() };
        if matches!(word, Word::Nil | Word::False | Word::True | Word::Not) {
            return self.refuse("an unexpected word or sign");
        }
        self.advance()?;
        match word {
            Word::If => self.if_statement(),
            Word::While => {
                let condition = self.expr()?;
                self.need_word(Word::Do)?;
                let body = self.block()?;
                self.need_word(Word::End)?;
                Ok(StatementKind::Blocks(vec![condition], vec![body]))
            }
            Word::Do => {
                let body = self.block()?;
                self.need_word(Word::End)?;
                Ok(StatementKind::Blocks(Vec::new(), vec![body]))
            }
            Word::For => self.for_statement(),
            Word::Repeat => {
                // The condition sees the locals of the body.
                let outer_len = self.scope.len();
                let body = self.statements()?;
                self.need_word(Word::Until)?;
                let condition = self.expr()?;
                self.scope.truncate(outer_len);
                Ok(StatementKind::Blocks(vec![condition], vec![body]))
            }
            Word::Function => self.function_statement(),
            Word::Local => self.local_statement(),
            Word::Return => {
                let has_values = !self.is_block_end() && !self.is_sign(";");
                Ok(StatementKind::Return(if has_values { self.exprs()? } else { Vec::new() }))
            }
            Word::Break => Ok(StatementKind::Break),
            Word::And
            | Word::Else
            | Word::Elseif
            | Word::End
            | Word::False
            | Word::In
            | Word::Nil
            | Word::Not
            | Word::Or
            | Word::Then
            | Word::True
            | Word::Until => self.refuse("an unexpected word or sign"),
        }
    }

    fn if_statement(&mut self) -> Parsed<StatementKind<'s>> {
        let (mut conditions, mut blocks) = (Vec::new(), Vec::new());
        loop {
            conditions.push(self.expr()?);
            self.need_word(Word::Then)?;
            blocks.push(self.block()?);
            if !self.take_word(Word::Elseif)? {
                break;
            }
        }
        if self.take_word(Word::Else)? {
            blocks.push(self.block()?);
        }
        self.need_word(Word::End)?;
        Ok(StatementKind::Blocks(conditions, blocks))
    }

    fn for_statement(&mut self) -> Parsed<StatementKind<'s>> {
        let mut names = vec![self.need_name()?];
        let counts = self.take_sign("=")?;
        if !counts {
            while self.take_sign(",")? {
                names.push(self.need_name()?);
            }
            self.need_word(Word::In)?;
        }
        let exprs = self.exprs()?;
        self.need_word(Word::Do)?;
        let outer_len = self.scope.len();
        let symbols: Vec<SymbolId> =
            names.into_iter().map(|name| self.declare(name)).collect::<Parsed<_>>()?;
        let body = self.block()?;
        self.scope.truncate(outer_len);
        self.need_word(Word::End)?;
        Ok(if counts {
            StatementKind::Count(symbols[0], exprs, body)
        } else {
            StatementKind::Each(symbols, exprs, body)
        })
    }

    /// `function a.b.c:d() ... end`, an assignment.
    fn function_statement(&mut self) -> Parsed<StatementKind<'s>> {
        let name = self.need_name()?;
        let mut target = self.resolve(name);
        let mut fields = Vec::new();
        let mut has_self = false;
        while !has_self && (self.is_sign(".") || self.is_sign(":")) {
            has_self = self.is_sign(":");
            self.advance()?;
            let line = self.line;
            fields.push(Suffix { line, kind: SuffixKind::Field(self.need_name()?) });
        }
        if !fields.is_empty() {
            target = Expr::Suffixed(Box::new(target), fields);
        }
        let function = self.function(has_self)?;
        Ok(StatementKind::Assign(vec![target], vec![function]))
    }

    fn local_statement(&mut self) -> Parsed<StatementKind<'s>> {
        if self.take_word(Word::Function)? {
            let name = self.need_name()?;
            // It can call itself.
            let symbol = self.declare(name)?;
            let function = self.function(false)?;
            return Ok(StatementKind::Local(vec![symbol], vec![function]));
        }
        let mut names = vec![self.need_name()?];
        while self.take_sign(",")? {
            names.push(self.need_name()?);
        }
        let exprs = if self.take_sign("=")? { self.exprs()? } else { Vec::new() };
        let symbols = names.into_iter().map(|name| self.declare(name)).collect::<Parsed<_>>()?;
        Ok(StatementKind::Local(symbols, exprs))
    }

    fn expression_statement(&mut self) -> Parsed<StatementKind<'s>> {
        let first = self.suffixed()?;
        if !self.is_sign("=") && !self.is_sign(",") {
            let is_call =
                matches!(&first, Expr::Suffixed(_, suffixes) if suffixes.last().is_some_and(is_call));
            return if is_call {
                Ok(StatementKind::Call(first))
            } else {
                self.refuse("an unexpected word or sign")
            };
        }
        let mut targets = vec![first];
        while self.take_sign(",")? {
            targets.push(self.suffixed()?);
        }
        self.need_sign("=")?;
        let assignable = |target: &Expr<'_>| match target {
            Expr::Local(_) | Expr::Global(_) => true,
            Expr::Suffixed(_, suffixes) => !suffixes.last().is_some_and(is_call),
            _ => false,
        };
        if !targets.iter().all(assignable) {
            return self.refuse("an assignment to what is no variable");
        }
        Ok(StatementKind::Assign(targets, self.exprs()?))
    }

    fn exprs(&mut self) -> Parsed<Vec<Expr<'s>>> {
        let mut exprs = vec![self.expr()?];
        while self.take_sign(",")? {
            exprs.push(self.expr()?);
        }
        Ok(exprs)
    }

    fn expr(&mut self) -> Parsed<Expr<'s>> {
        self.operation(0)
    }

    /// An expression of operators that bind tighter than `limit`.
    fn operation(&mut self, limit: u8) -> Parsed<Expr<'s>> {
        self.enter()?;
        let mut left = self.unary()?;
        while let Some((operator, left_priority, right_priority)) = self.binary() {
            if left_priority <= limit {
                break;
            }
            self.advance()?;
            let right = self.operation(right_priority)?;
            left = join(operator, left, right);
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expr<'s>> {
        if self.take_word(Word::Not)? {
            return Ok(Expr::Not(Box::new(self.operation(UNARY_PRIORITY)?)));
        }
        if self.take_sign("#")? {
            return Ok(Expr::Len(Box::new(self.operation(UNARY_PRIORITY)?)));
        }
        if self.take_sign("-")? {
            return Ok(Expr::Operation(vec![self.operation(UNARY_PRIORITY)?]));
        }
        self.simple()
    }

    /// The operator here, how tight it binds to its left, and to its right.
    fn binary(&self) -> Option<(Operator, u8, u8)> {
        Some(match self.token {
            Token::Word(Word::Or) => (Operator::Or, 1, 1),
            Token::Word(Word::And) => (Operator::And, 2, 2),
            Token::Sign("<" | ">" | "<=" | ">=" | "~=" | "==") => (Operator::Operation, 3, 3),
            Token::Sign("..") => (Operator::Concat, 5, 4),
            Token::Sign("+" | "-") => (Operator::Operation, 6, 6),
            Token::Sign("*" | "/" | "%") => (Operator::Operation, 7, 7),
            Token::Sign("^") => (Operator::Operation, 10, 9),
            Token::Sign(_)
            | Token::Word(_)
            | Token::Name(_)
            | Token::Number(_)
            | Token::Text(_)
            | Token::End => {
                return None;
            }
        })
    }

    fn simple(&mut self) -> Parsed<Expr<'s>> {
        let expr = match &mut self.token {
            Token::Number(Some(digits)) if digits.len() <= EXACT_DIGITS_MAX => Expr::Literal(integer(digits)),
            Token::Number(_) => Expr::Plain,
            Token::Text(text) => Expr::Literal(std::mem::take(text)),
            Token::Word(Word::Nil | Word::False) => Expr::Nothing,
            Token::Word(Word::True) => Expr::Plain,
            Token::Sign("...") => Expr::Varargs,
            Token::Sign("{") => return self.table(),
            Token::Word(Word::Function) => {
                self.advance()?;
                return self.function(false);
            }
            Token::Name(_) | Token::Word(_) | Token::Sign(_) | Token::End => return self.suffixed(),
        };
        self.advance()?;
        Ok(expr)
    }

    fn suffixed(&mut self) -> Parsed<Expr<'s>> {
        let head = if self.take_sign("(")? {
            let expr = self.expr()?;
            self.need_sign(")")?;
            Expr::One(Box::new(expr))
        } else {
            let name = self.need_name()?;
            self.resolve(name)
        };
        let mut suffixes = Vec::new();
        loop {
            let line = self.line;
            let kind = match self.token {
                Token::Sign(".") => {
                    self.advance()?;
                    SuffixKind::Field(self.need_name()?)
                }
                Token::Sign("[") => {
                    self.advance()?;
                    let index = self.expr()?;
                    self.need_sign("]")?;
                    SuffixKind::Index(index)
                }
                Token::Sign(":") => {
                    self.advance()?;
                    self.need_name()?;
                    SuffixKind::Method(self.args()?)
                }
                Token::Sign("(" | "{") | Token::Text(_) => SuffixKind::Call(self.args()?),
                Token::Sign(_) | Token::Word(_) | Token::Name(_) | Token::Number(_) | Token::End => break,
            };
            suffixes.push(Suffix { line, kind });
        }
        Ok(if suffixes.is_empty() { head } else { Expr::Suffixed(Box::new(head), suffixes) })
    }

    fn args(&mut self) -> Parsed<Vec<Expr<'s>>> {
        match &mut self.token {
            Token::Text(text) => {
                let literal = Expr::Literal(std::mem::take(text));
                self.advance()?;
                Ok(vec![literal])
            }
            Token::Sign("{") => Ok(vec![self.table()?]),
            Token::Sign("(") => {
                self.advance()?;
                let args = if self.is_sign(")") { Vec::new() } else { self.exprs()? };
                self.need_sign(")")?;
                Ok(args)
            }
            Token::Sign(_) | Token::Word(_) | Token::Name(_) | Token::Number(_) | Token::End => {
                self.refuse("missing arguments")
            }
        }
    }

    fn table(&mut self) -> Parsed<Expr<'s>> {
        self.need_sign("{")?;
        let (mut named, mut other) = (Vec::new(), Vec::new());
        while !self.is_sign("}") {
            if self.take_sign("[")? {
                other.push(self.expr()?);
                self.need_sign("]")?;
                self.need_sign("=")?;
                other.push(self.expr()?);
            } else if let Token::Name(name) = self.token {
                // A name and `=`, or an expression that begins with a name. `==` is another sign.
                let ahead = self.lexer.peek()?;
                if ahead == Token::Sign("=") {
                    self.advance()?;
                    self.advance()?;
                    named.push((name, self.expr()?));
                } else {
                    other.push(self.expr()?);
                }
            } else {
                other.push(self.expr()?);
            }
            if !self.take_sign(",")? && !self.take_sign(";")? {
                break;
            }
        }
        self.need_sign("}")?;
        Ok(Expr::Table { named, other })
    }

    /// Parameters and body, after the word `function` and the name.
    fn function(&mut self, has_self: bool) -> Parsed<Expr<'s>> {
        let id = FunctionId(self.chunk.functions.len());
        self.chunk.functions.push(Function::default());
        let outer = std::mem::replace(&mut self.function, id);
        let outer_len = self.scope.len();
        let mut params = Vec::new();
        if has_self {
            params.push(self.declare(b"self")?);
        }
        self.need_sign("(")?;
        while !self.is_sign(")") {
            if self.take_sign("...")? {
                break;
            }
            let name = self.need_name()?;
            params.push(self.declare(name)?);
            if !self.take_sign(",")? {
                break;
            }
        }
        self.need_sign(")")?;
        let body = self.block()?;
        self.need_word(Word::End)?;
        self.scope.truncate(outer_len);
        self.function = outer;
        self.chunk.functions[id.0] = Function { params, body };
        Ok(Expr::Function(id))
    }
}

fn is_call(suffix: &Suffix<'_>) -> bool {
    match suffix.kind {
        SuffixKind::Call(_) | SuffixKind::Method(_) => true,
        SuffixKind::Field(_) | SuffixKind::Index(_) => false,
    }
}

/// Keeps chains flat: `a + b + c` is one operation.
fn join<'s>(operator: Operator, left: Expr<'s>, right: Expr<'s>) -> Expr<'s> {
    match (operator, left) {
        // It binds to its right.
        (Operator::Concat, left) => match right {
            Expr::Concat(mut operands) => {
                operands.insert(0, left);
                Expr::Concat(operands)
            }
            right => Expr::Concat(vec![left, right]),
        },
        (Operator::Operation, Expr::Operation(mut operands)) => {
            operands.push(right);
            Expr::Operation(operands)
        }
        (Operator::And, Expr::And(mut operands)) => {
            operands.push(right);
            Expr::And(operands)
        }
        (Operator::Or, Expr::Or(mut operands)) => {
            operands.push(right);
            Expr::Or(operands)
        }
        (Operator::Operation, left) => Expr::Operation(vec![left, right]),
        (Operator::And, left) => Expr::And(vec![left, right]),
        (Operator::Or, left) => Expr::Or(vec![left, right]),
    }
}

/// A number as an argument of a command: `007` is `7`.
fn integer(digits: &[u8]) -> Vec<u8> {
    let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
    digits[zeros.min(digits.len() - 1)..].to_vec()
}
