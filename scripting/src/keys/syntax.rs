//! What a script consists of, as far as the analysis looks at it. Every local variable is one [`Symbol`], resolved already.

use crate::keys::lexer::Refused;

/// A function's number in [`Chunk::functions`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FunctionId(pub(super) usize);

/// A local variable's number in [`Chunk::symbols`]. Two of one name are two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SymbolId(pub(super) usize);

/// A parsed source. The first of the functions is the whole of it.
#[derive(Default)]
pub(super) struct Chunk<'s> {
    pub(super) functions: Vec<Function<'s>>,
    pub(super) symbols: Vec<Symbol>,
}

pub(super) const MAIN: FunctionId = FunctionId(0);

#[derive(Default)]
pub(super) struct Function<'s> {
    pub(super) params: Vec<SymbolId>,
    pub(super) body: Block<'s>,
}

pub(super) struct Symbol {
    /// The function that declares it.
    pub(super) owner: FunctionId,
    /// A function within that one names it.
    pub(super) is_captured: bool,
}

pub(super) type Block<'s> = Vec<Statement<'s>>;

pub(super) struct Statement<'s> {
    pub(super) line: u32,
    pub(super) kind: StatementKind<'s>,
}

pub(super) enum StatementKind<'s> {
    Local(Vec<SymbolId>, Vec<Expr<'s>>),
    /// Its targets are names or end with an index.
    Assign(Vec<Expr<'s>>, Vec<Expr<'s>>),
    Call(Expr<'s>),
    /// Blocks with the expressions that decide between them: do, while, repeat, if.
    Blocks(Vec<Expr<'s>>, Vec<Block<'s>>),
    /// `for symbol = from, to, step`.
    Count(SymbolId, Vec<Expr<'s>>, Block<'s>),
    /// `for symbols in ...`.
    Each(Vec<SymbolId>, Vec<Expr<'s>>, Block<'s>),
    Return(Vec<Expr<'s>>),
    Break,
}

pub(super) enum Expr<'s> {
    /// nil or false.
    Nothing,
    /// true, or a number that is not an integer without a sign.
    Plain,
    /// A string, or such an integer.
    Literal(Vec<u8>),
    Varargs,
    Function(FunctionId),
    /// The named fields are apart, for the tables of named arguments.
    Table {
        named: Vec<(&'s [u8], Expr<'s>)>,
        other: Vec<Expr<'s>>,
    },
    Local(SymbolId),
    Global(&'s [u8]),
    /// In parentheses: one value only.
    One(Box<Expr<'s>>),
    Suffixed(Box<Expr<'s>>, Vec<Suffix<'s>>),
    Len(Box<Expr<'s>>),
    Not(Box<Expr<'s>>),
    /// Arithmetic and comparisons.
    Operation(Vec<Expr<'s>>),
    Concat(Vec<Expr<'s>>),
    And(Vec<Expr<'s>>),
    Or(Vec<Expr<'s>>),
}

pub(super) struct Suffix<'s> {
    pub(super) line: u32,
    pub(super) kind: SuffixKind<'s>,
}

pub(super) enum SuffixKind<'s> {
    Field(&'s [u8]),
    Index(Expr<'s>),
    Call(Vec<Expr<'s>>),
    /// Its name does not matter.
    Method(Vec<Expr<'s>>),
}

pub(super) type Parsed<T> = Result<T, Refused>;
