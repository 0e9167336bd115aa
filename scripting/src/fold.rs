//! What a script would look up again and again stands among its constants.
//!
//! Nothing can change the globals of a script that assigns none: they are read-only, and no script can give a function others. So
//! `redis.call`, `redis.pcall`, `KEYS` and `ARGV` are what they are for a whole run, and so is `KEYS[1]`, where the script does
//! nothing with the list but read it. Two or three look-ups in tables cost more than the command that the script calls; [`fold`] has
//! the bytecode load a constant instead. [`crate::layout::slots`] finds these constants in a function that was loaded; whoever binds
//! it to a run sets them.
//!
//! Lua names a variable or a field in the text of an error by the instruction that has loaded it. So this is done only where no
//! error can be about the value: a function that is called, a table whose element or length is read, an element that is an argument
//! of a call.

use std::ffi::{c_int, c_void};

use crate::ffi::*;

/// One of the two lists that a script gets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum List {
    Keys,
    Argv,
}

pub(crate) const LISTS: [List; 2] = [List::Keys, List::Argv];

impl List {
    fn name(self) -> &'static [u8] {
        match self {
            List::Keys => b"KEYS",
            List::Argv => b"ARGV",
        }
    }
}

/// What a constant is to be. Elements, which change with each run, are the last in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Known {
    Call,
    Pcall,
    List(List),
    /// What stands for the element at this index, from 1, where it is an argument of one of the first two: [`stand_in`].
    Argument(List, u32),
    /// The element itself; nil beyond the end.
    Element(List, u32),
}

/// What scripts call commands with instead of elements, so that no Lua string is made of these: the addresses of its bytes, which
/// no script gets to see.
static STAND_INS: [u8; 2 * (INDEX_MAX as usize + 1)] = [0; 2 * (INDEX_MAX as usize + 1)];

/// The address that stands for an element.
pub(crate) fn stand_in(list: List, index: u32) -> *mut c_void {
    (&raw const STAND_INS[list as usize * (INDEX_MAX as usize + 1) + index as usize]).cast_mut().cast()
}

/// The element that an address stands for.
#[inline]
pub(crate) fn stood_for(address: *mut c_void) -> Option<(List, usize)> {
    let at = address.addr().wrapping_sub(STAND_INS.as_ptr().addr());
    let len = INDEX_MAX as usize + 1;
    (at < STAND_INS.len()).then(|| (LISTS[at / len], at % len))
}

/// A constant of a function, which has this index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) known: Known,
    pub(crate) constant: u32,
}

/// A chunk's bytecode as it is run.
pub(crate) struct Folded {
    pub(crate) code: Vec<u8>,
    /// For the function, and the functions within it: each before those within it, in their order. Empty: nothing was folded.
    pub(crate) places: Vec<Vec<Place>>,
    /// The chunk, or a function within it, assigns a global variable. Then nothing is folded.
    pub(crate) assigns_globals: bool,
    /// Whether it may look at [these](LISTS) otherwise than by their elements in `places`.
    pub(crate) needs_lists: [bool; 2],
}

/// Folds what bytecode as this machine's Lua dumps it looks up. What cannot be read is left as it is, and taken to assign globals.
pub(crate) fn fold(code: Vec<u8>) -> Folded {
    let mut survey = Survey::default();
    let is_read = after_header(&code).and_then(|mut rest| rest.survey(&mut survey)).is_some();
    let assigns_globals = survey.assigns_globals || !is_read;
    let unchanged = |code| Folded { code, places: Vec::new(), assigns_globals, needs_lists: [true; 2] };
    if assigns_globals {
        return unchanged(code);
    }
    let mut folding =
        Folding { survey, out: code[..HEADER_BYTES].to_vec(), places: Vec::new(), needs_lists: [false; 2] };
    if after_header(&code).and_then(|mut rest| rest.fold(&mut folding)).is_none() {
        return unchanged(code);
    }
    let needs_lists = LISTS.map(|list| survey.sees_globals || folding.needs_lists[list as usize]);
    if folding.places.iter().all(Vec::is_empty) {
        return Folded { needs_lists, ..unchanged(code) };
    }
    Folded { code: folding.out, places: folding.places, assigns_globals, needs_lists }
}

/// What a chunk does with its globals.
#[derive(Clone, Copy, Default)]
struct Survey {
    assigns_globals: bool,
    /// It may get hold of the table of globals, or run code that does.
    sees_globals: bool,
    /// It does something else with [these](LISTS) than to read an element, or the length.
    is_used_whole: [bool; 2],
}

/// By which a chunk gets at globals that its code does not name.
const GATES_TO_GLOBALS: [&[u8]; 3] = [b"_G", b"load", b"loadstring"];

/// A chunk on its way.
struct Folding {
    survey: Survey,
    out: Vec<u8>,
    places: Vec<Vec<Place>>,
    needs_lists: [bool; 2],
}

/// `ESC Lua`, the version, the format, and the sizes of types.
const HEADER_BYTES: usize = 12;

/// The instructions that are looked for (lopcodes.h).
mod op {
    pub(super) const MOVE: u32 = 0;
    pub(super) const LOADK: u32 = 1;
    pub(super) const LOADBOOL: u32 = 2;
    pub(super) const LOADNIL: u32 = 3;
    pub(super) const GETUPVAL: u32 = 4;
    pub(super) const GETGLOBAL: u32 = 5;
    pub(super) const GETTABLE: u32 = 6;
    pub(super) const SETGLOBAL: u32 = 7;
    pub(super) const NEWTABLE: u32 = 10;
    pub(super) const ADD: u32 = 12;
    pub(super) const POW: u32 = 17;
    pub(super) const UNM: u32 = 18;
    pub(super) const LEN: u32 = 20;
    pub(super) const CONCAT: u32 = 21;
    pub(super) const JMP: u32 = 22;
    pub(super) const EQ: u32 = 23;
    pub(super) const LT: u32 = 24;
    pub(super) const LE: u32 = 25;
    pub(super) const TEST: u32 = 26;
    pub(super) const TESTSET: u32 = 27;
    pub(super) const CALL: u32 = 28;
    pub(super) const TAILCALL: u32 = 29;
    pub(super) const FORLOOP: u32 = 31;
    pub(super) const FORPREP: u32 = 32;
    pub(super) const TFORLOOP: u32 = 33;
    pub(super) const SETLIST: u32 = 34;
}

/// An instruction: six bits say which one it is; behind them stand A, of 8 bits, and B and C, of 9 bits, or B and C together
/// as one number.
#[derive(Clone, Copy)]
struct Instruction(u32);

/// Whether an instruction is `return f(...)`.
#[inline(always)]
pub(crate) fn is_tail_call(instruction: u32) -> bool {
    Instruction(instruction).op() == op::TAILCALL
}

/// A register or, with this bit, a constant.
const CONSTANT_BIT: u32 = 1 << 8;
const BX_MAX: u32 = (1 << 18) - 1;
const SIGNED_BX_ZERO: i64 = (BX_MAX >> 1) as i64;

impl Instruction {
    fn with_bx(op: u32, a: u32, bx: u32) -> Instruction {
        Instruction(op | a << 6 | bx << 14)
    }

    fn op(self) -> u32 {
        self.0 & 0x3f
    }

    fn a(self) -> u32 {
        self.0 >> 6 & 0xff
    }

    fn b(self) -> u32 {
        self.0 >> 23
    }

    fn c(self) -> u32 {
        self.0 >> 14 & 0x1ff
    }

    fn bx(self) -> u32 {
        self.0 >> 14
    }

    /// Whether it only computes a register from others, of which none is this one, and the run goes on behind it.
    fn passes_over(self, register: u32) -> bool {
        let (b, c) = (self.b(), self.c());
        self.a() != register
            && match self.op() {
                op::LOADK | op::GETUPVAL | op::GETGLOBAL | op::NEWTABLE => true,
                op::LOADBOOL => c == 0,
                // All from A to B.
                op::LOADNIL => !(self.a()..=b).contains(&register),
                op::MOVE | op::UNM..=op::LEN => b != register,
                op::GETTABLE => b != register && c != register,
                op::ADD..=op::POW => b != register && c != register,
                op::CONCAT => !(b..=c).contains(&register),
                // It takes its function and arguments from A on, and puts results there.
                op::CALL => self.a() > register,
                _ => false,
            }
    }

    /// Where else than behind it the run may go on, if it stands at `at`.
    fn target(self, at: usize) -> Option<i64> {
        let next = at as i64 + 1;
        match self.op() {
            op::JMP | op::FORLOOP | op::FORPREP => Some(next + i64::from(self.bx()) - SIGNED_BX_ZERO),
            op::LOADBOOL if self.c() == 0 => None,
            op::LOADBOOL | op::EQ | op::LT | op::LE | op::TEST | op::TESTSET | op::TFORLOOP => Some(next + 1),
            _ => None,
        }
    }
}

fn after_header(code: &[u8]) -> Option<Bytecode<'_>> {
    Some(Bytecode { rest: code.get(HEADER_BYTES..)? })
}

#[derive(Clone, Copy)]
enum Constant<'a> {
    Text(&'a [u8]),
    Number(f64),
    Other,
}

/// Those of a function.
struct Constants<'a>(Vec<Constant<'a>>);

impl<'a> Constants<'a> {
    fn text(&self, index: u32) -> Option<&'a [u8]> {
        match self.0.get(index as usize) {
            Some(Constant::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The list that a look-up of a global finds.
    fn list(&self, instruction: Instruction) -> Option<List> {
        let name = self.text(instruction.bx()).filter(|_| instruction.op() == op::GETGLOBAL)?;
        LISTS.into_iter().find(|list| list.name() == name)
    }

    /// An operand that is a constant.
    fn operand(&self, operand: u32) -> Option<Constant<'a>> {
        let index = operand & !CONSTANT_BIT;
        self.0.get(index as usize).copied().filter(|_| operand & CONSTANT_BIT != 0)
    }

    /// The same as an index of a list.
    fn index(&self, operand: u32) -> Option<u32> {
        match self.operand(operand) {
            Some(Constant::Number(number)) if number >= 1.0 && number <= f64::from(INDEX_MAX) => {
                Some(number as u32).filter(|&index| f64::from(index) == number)
            }
            _ => None,
        }
    }
}

/// Elements behind this one are looked up.
const INDEX_MAX: u32 = 64;

/// Whether the second of two instructions reads an element, or the length, of what the first has put into a register, and puts it
/// there instead.
fn reads_in_place(first: Instruction, second: Instruction) -> bool {
    let a = first.a();
    matches!(second.op(), op::GETTABLE | op::LEN) && (second.a(), second.b()) == (a, a)
}

/// Bytecode: integers of 4 bytes, sizes and numbers of 8, all in the machine's order.
#[derive(Clone, Copy)]
struct Bytecode<'a> {
    rest: &'a [u8],
}

impl<'a> Bytecode<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn integer(&mut self) -> Option<usize> {
        let bytes = self.take(4)?.first_chunk::<4>()?;
        usize::try_from(i32::from_ne_bytes(*bytes)).ok()
    }

    /// A string with the NUL behind it; empty: none.
    fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::from_ne_bytes(*self.take(8)?.first_chunk::<8>()?);
        self.take(len)
    }

    fn constant(&mut self) -> Option<Constant<'a>> {
        let len = match c_int::from(self.byte()?) {
            LUA_TNIL => 0,
            LUA_TBOOLEAN => 1,
            LUA_TNUMBER => {
                let bytes = self.take(8)?.first_chunk::<8>()?;
                return Some(Constant::Number(f64::from_ne_bytes(*bytes)));
            }
            LUA_TSTRING => return self.string()?.split_last().map(|(_, text)| Constant::Text(text)),
            _ => return None,
        };
        self.take(len)?;
        Some(Constant::Other)
    }

    /// A function's head: its source, its lines, the numbers of upvalues, parameters and registers, and whether it takes more
    /// arguments.
    fn head(&mut self) -> Option<()> {
        self.string()?;
        self.take(2 * 4 + 4)?;
        Some(())
    }

    fn instructions(&mut self) -> Option<Vec<Instruction>> {
        let len = self.integer()?.checked_mul(4)?;
        let words = self.take(len)?.as_chunks::<4>().0.iter();
        Some(words.map(|word| Instruction(u32::from_ne_bytes(*word))).collect())
    }

    fn constants(&mut self) -> Option<Constants<'a>> {
        (0..self.integer()?).map(|_| self.constant()).collect::<Option<_>>().map(Constants)
    }

    /// Reads a function's debug information, which ends it, and appends that of the instructions that are kept: the line of each, for
    /// which of them a local variable has its name, and the names of upvalues.
    fn debug_information(&mut self, kept: &Kept, out: &mut Vec<u8>) -> Option<()> {
        let line_count = self.integer()?;
        let lines = self.take(line_count.checked_mul(4)?)?.as_chunks::<4>().0;
        if line_count != kept.is_kept.len() {
            return None;
        }
        append_integer(out, kept.len());
        kept.of(lines).for_each(|line| out.extend(line));
        let variable_count = self.integer()?;
        append_integer(out, variable_count);
        for _ in 0..variable_count {
            let before = *self;
            self.string()?;
            out.extend_from_slice(before.until(*self));
            append_integer(out, kept.place(self.integer()?)?);
            append_integer(out, kept.place(self.integer()?)?);
        }
        let before = *self;
        for _ in 0..self.integer()? {
            self.string()?;
        }
        out.extend_from_slice(before.until(*self));
        Some(())
    }

    /// Reads a function.
    fn survey(&mut self, survey: &mut Survey) -> Option<()> {
        self.head()?;
        let instructions = self.instructions()?;
        let constants = self.constants()?;
        let is_data = data_words(&instructions);
        for (at, &instruction) in instructions.iter().enumerate().filter(|&(at, _)| !is_data[at]) {
            survey.assigns_globals |= instruction.op() == op::SETGLOBAL;
            if instruction.op() != op::GETGLOBAL {
                continue;
            }
            let name = constants.text(instruction.bx())?;
            survey.sees_globals |= GATES_TO_GLOBALS.contains(&name);
            if let Some(list) = constants.list(instruction) {
                let next = *instructions.get(at + 1)?;
                survey.is_used_whole[list as usize] |= !reads_in_place(instruction, next);
            }
        }
        for _ in 0..self.integer()? {
            self.survey(survey)?;
        }
        self.debug_information(&Kept::new(vec![true; instructions.len()]), &mut Vec::new())
    }

    /// Reads a function, and appends it as it is run.
    fn fold(&mut self, folding: &mut Folding) -> Option<()> {
        let start = *self;
        self.head()?;
        let out = &mut folding.out;
        out.extend_from_slice(start.until(*self));

        let mut instructions = self.instructions()?;
        let before_constants = *self;
        let constants = self.constants()?;
        let folded = FoldedFunction::of(&mut instructions, &constants, folding.survey)?;
        append_integer(out, folded.kept.len());
        folded.kept.of(&instructions).for_each(|it| out.extend_from_slice(&it.0.to_ne_bytes()));
        append_integer(out, constants.0.len() + folded.places.len());
        out.extend_from_slice(&before_constants.until(*self)[4..]);
        out.extend(std::iter::repeat_n(LUA_TNIL as u8, folded.places.len()));
        folding.places.push(folded.places);
        for list in LISTS {
            folding.needs_lists[list as usize] |= folded.needs_lists[list as usize];
        }

        let functions = self.integer()?;
        append_integer(out, functions);
        for _ in 0..functions {
            self.fold(folding)?;
        }
        self.debug_information(&folded.kept, &mut folding.out)
    }

    /// What was read from here up to `later`.
    fn until(self, later: Bytecode<'a>) -> &'a [u8] {
        &self.rest[..self.rest.len() - later.rest.len()]
    }
}

fn append_integer(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&(value as i32).to_ne_bytes());
}

/// Which instructions of a function are left.
struct Kept {
    is_kept: Vec<bool>,
    /// For each place of an instruction, and the one behind the last: where it is afterwards.
    places: Vec<u32>,
}

impl Kept {
    fn new(is_kept: Vec<bool>) -> Kept {
        let mut len = 0;
        let mut places = Vec::with_capacity(is_kept.len() + 1);
        for &is_kept in &is_kept {
            places.push(len);
            len += u32::from(is_kept);
        }
        places.push(len);
        Kept { is_kept, places }
    }

    fn len(&self) -> usize {
        self.places.last().map_or(0, |&len| len as usize)
    }

    /// What there is of those that are kept.
    fn of<'a, T>(&'a self, all: &'a [T]) -> impl Iterator<Item = &'a T> {
        all.iter().zip(&self.is_kept).filter(|(_, is_kept)| **is_kept).map(|(one, _)| one)
    }

    fn place(&self, before: usize) -> Option<usize> {
        self.places.get(before).map(|&place| place as usize)
    }
}

/// A function whose look-ups are folded.
struct FoldedFunction {
    /// The constants that it loads instead, which are to be added behind those that there are.
    places: Vec<Place>,
    kept: Kept,
    /// It uses [these](LISTS) otherwise than by elements that are constants.
    needs_lists: [bool; 2],
}

impl FoldedFunction {
    fn of(
        instructions: &mut [Instruction],
        constants: &Constants<'_>,
        survey: Survey,
    ) -> Option<FoldedFunction> {
        let mut places: Vec<Place> = Vec::new();
        let mut is_kept = vec![true; instructions.len()];
        let mut needs_lists = [false; 2];
        let mut command_calls: CommandCalls = [None; CONSTANT_BIT as usize];
        let mut is_target = vec![false; instructions.len() + 1];
        let is_data = data_words(instructions);
        for (at, instruction) in instructions.iter().enumerate().filter(|&(at, _)| !is_data[at]) {
            if let Some(target) = instruction.target(at) {
                *is_target.get_mut(usize::try_from(target).ok()?)? = true;
            }
        }
        // No instruction that ends a function looks anything up.
        for at in 0..instructions.len().saturating_sub(1) {
            let (first, second) = (instructions[at], instructions[at + 1]);
            if is_data[at] || first.op() != op::GETGLOBAL {
                continue;
            }
            let reads_in_place = reads_in_place(first, second);
            let is_pair = reads_in_place && second.op() == op::GETTABLE && !is_target[at + 1];
            let field = is_pair.then_some(second.c());
            let list = constants.list(first);
            let known = match list {
                Some(list) => {
                    let may_change = survey.sees_globals || survey.is_used_whole[list as usize];
                    let index = field.filter(|_| !may_change).and_then(|field| constants.index(field));
                    let straight = Straight { instructions, is_data: &is_data, is_target: &is_target };
                    let element = index.and_then(|index| straight.element(list, index, at, &command_calls));
                    element.or(reads_in_place.then_some(Known::List(list)))
                }
                None if constants.text(first.bx()) == Some(b"redis") => {
                    match field.and_then(|field| constants.operand(field)) {
                        Some(Constant::Text(b"call")) => Some(Known::Call),
                        Some(Constant::Text(b"pcall")) => Some(Known::Pcall),
                        _ => None,
                    }
                }
                None => None,
            };
            if let Some(list) = list {
                needs_lists[list as usize] |=
                    !matches!(known, Some(Known::Element(..) | Known::Argument(..)));
            }
            let Some(known) = known else { continue };
            if matches!(known, Known::Call | Known::Pcall) {
                command_calls[first.a() as usize] = Some(at);
            }
            let there = places.iter().find(|place| place.known == known).map(|place| place.constant);
            let constant = there.unwrap_or_else(|| {
                let constant = (constants.0.len() + places.len()) as u32;
                places.push(Place { known, constant });
                constant
            });
            if constant > BX_MAX {
                return None;
            }
            instructions[at] = Instruction::with_bx(op::LOADK, first.a(), constant);
            // Of others the value is there already.
            is_kept[at + 1] = matches!(known, Known::List(_));
        }
        let kept = Kept::new(is_kept);
        for (at, instruction) in instructions.iter_mut().enumerate().filter(|&(at, _)| !is_data[at]) {
            if let op::JMP | op::FORLOOP | op::FORPREP = instruction.op() {
                let target = usize::try_from(instruction.target(at)?).ok()?;
                let distance = kept.place(target)? as i64 - (kept.place(at)? as i64 + 1);
                let bx = u32::try_from(distance + SIGNED_BX_ZERO).ok()?;
                *instruction = Instruction::with_bx(instruction.op(), instruction.a(), bx);
            }
        }
        Some(FoldedFunction { places, kept, needs_lists })
    }
}

/// For each register: where it was last set to what calls a command.
type CommandCalls = [Option<usize>; CONSTANT_BIT as usize];

/// A function's instructions, as far as they run one after the other.
struct Straight<'a> {
    instructions: &'a [Instruction],
    is_data: &'a [bool],
    is_target: &'a [bool],
}

impl Straight<'_> {
    /// What is loaded in place of an element that the two instructions at `at` look up, if that is used as an argument alone.
    fn element(&self, list: List, index: u32, at: usize, command_calls: &CommandCalls) -> Option<Known> {
        let call_at = self.use_of_argument(at + 1, self.instructions[at].a())?;
        let function = self.instructions[call_at].a();
        // Behind the two instructions by which it was set.
        let set_at = command_calls[function as usize].map(|at| at + 2);
        Some(match set_at.is_some_and(|set_at| self.keeps(function, set_at, call_at)) {
            true => Known::Argument(list, index),
            false => Known::Element(list, index),
        })
    }

    /// If what the instruction at `at` puts into a register is next used as an argument of a call, in any case: where that is.
    fn use_of_argument(&self, at: usize, register: u32) -> Option<usize> {
        for at in at + 1..self.instructions.len() {
            let instruction = self.instructions[at];
            if self.is_data[at] || self.is_target[at] {
                return None;
            }
            if matches!(instruction.op(), op::CALL | op::TAILCALL) && instruction.a() < register {
                // With B at 0 all registers up to the last one that was set.
                let is_argument = instruction.b() == 0 || register < instruction.a() + instruction.b();
                return is_argument.then_some(at);
            }
            if !instruction.passes_over(register) {
                return None;
            }
        }
        None
    }

    /// Whether a register is what it was from one instruction to another.
    fn keeps(&self, register: u32, from: usize, to: usize) -> bool {
        let passes_over = |at: usize| !self.is_data[at] && self.instructions[at].passes_over(register);
        !self.is_target[from..=to].contains(&true) && (from..to).all(passes_over)
    }
}

/// Which words are no instructions: the one behind a SETLIST whose number does not fit into it.
fn data_words(instructions: &[Instruction]) -> Vec<bool> {
    let mut is_data = vec![false; instructions.len()];
    for at in 1..instructions.len() {
        let before = instructions[at - 1];
        is_data[at] = !is_data[at - 1] && before.op() == op::SETLIST && before.c() == 0;
    }
    is_data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{dump, load, load_code};

    /// What a source compiles to, folded; `None`: it does not compile.
    fn folded(source: &str) -> Option<Folded> {
        // SAFETY: the state is this test's own, and nothing runs in it.
        unsafe {
            let lua = luaL_newstate();
            crate::run::anchor_chunk_name(lua, c"@user_script".as_ptr());
            let folded = load(lua, source.as_bytes(), c"@user_script").ok().map(|()| fold(dump(lua)));
            if let Some(folded) = &folded {
                // Lua checks what it loads.
                load_code(lua, &folded.code);
            }
            lua_close(lua);
            folded
        }
    }

    /// How many values each function gets.
    fn counts(source: &str) -> Vec<usize> {
        let places = folded(source).expect("it compiles").places;
        places.iter().map(Vec::len).collect()
    }

    #[test]
    fn assignments_of_globals_are_found_at_any_depth() {
        for source in [
            "a = 1",
            "function f() end",
            "local f = function() return function(x) y = x end end",
            "if false then KEYS = nil end",
            "local t = {function() for i = 1, 2 do t = i end end}",
        ] {
            let folded = folded(source).expect("it compiles");
            assert!(folded.assigns_globals && folded.places.is_empty(), "{source}");
        }
        for source in [
            "",
            "return redis.call('GET', KEYS[1])",
            "local a, b = 1.5, 'text' a = b local t = {} t.x = nil t[1] = true",
            "local function f(...) local n = select('#', ...) return function() return f, n end end return f(1, 2)",
            "_G.x = 1",
        ] {
            assert!(!folded(source).expect("it compiles").assigns_globals, "{source}");
        }
    }

    #[test]
    fn calls_and_elements_are_folded_in_each_function() {
        assert_eq!(counts("return redis.call('GET', KEYS[1])"), [2]);
        assert_eq!(counts("return #ARGV + #KEYS"), [2]);
        assert_eq!(
            counts("for i = 1, #KEYS do redis.pcall(ARGV[1], KEYS[i]) end return redis.call('X')"),
            [4]
        );
        assert_eq!(
            counts("local f = function() return function() return KEYS[1] end end return f"),
            [0, 0, 1]
        );
        let many = format!("local t = {{{}redis.call('GET', KEYS[1])}} return t", "0,".repeat(30_000));
        assert_eq!(counts(&many), [2], "words behind SETLIST are numbers");
    }

    #[test]
    fn elements_are_folded_where_they_are_arguments_and_the_list_is_only_read() {
        let is_element = |known: Known| matches!(known, Known::Element(..) | Known::Argument(..));
        for (source, elements, needs_lists) in [
            ("return redis.call('GET', KEYS[1])", 1, [false, false]),
            ("return redis.call(ARGV[2], KEYS[1], KEYS[64], KEYS[1])", 3, [false, false]),
            ("return tonumber(ARGV[1])", 1, [false, false]),
            ("local f = function() return redis.call('GET', KEYS[1]) end return f()", 1, [false, false]),
            ("return redis.call('SET', KEYS[1], tostring(1 + 2) .. 'x', {})", 1, [false, false]),
            ("return redis.call('SET', KEYS[1], tostring(ARGV[1]), ARGV[2] + 1)", 2, [false, true]),
            ("return redis.call('GET', KEYS[1] .. 'x')", 0, [true, false]),
            ("local key = KEYS[1] return redis.call('GET', key)", 0, [true, false]),
            ("return redis.call('GET', ARGV[1] and KEYS[1] or 'x')", 0, [true, true]),
            (
                "return redis.call('GET', KEYS[0]), redis.call('GET', KEYS[1.5], KEYS[65], KEYS['x'])",
                0,
                [true, false],
            ),
            ("return #KEYS, redis.call('GET', KEYS[1])", 1, [true, false]),
            ("KEYS[1] = 'x' return redis.call('GET', KEYS[1])", 0, [true, false]),
            ("local keys = KEYS keys[1] = 'x' return redis.call('GET', KEYS[1])", 0, [true, false]),
            ("table.sort(KEYS) return redis.call('GET', KEYS[1], ARGV[1])", 1, [true, false]),
            ("return redis.call('GET', KEYS[1], _G.KEYS[1])", 0, [true, true]),
            ("return loadstring('return KEYS')(), redis.call('GET', KEYS[1])", 0, [true, true]),
            ("return 1", 0, [false, false]),
        ] {
            let folded = folded(source).expect("it compiles");
            let found = folded.places.iter().flatten().filter(|place| is_element(place.known)).count();
            assert_eq!((found, folded.needs_lists), (elements, needs_lists), "{source}");
        }
    }

    #[test]
    fn what_stands_for_an_element_comes_to_nobody_but_commands() {
        let stands_in = |known: &Known| matches!(known, Known::Argument(..));
        for (source, arguments, elements) in [
            ("return redis.call('GET', KEYS[1])", 1, 0),
            ("return redis.pcall(ARGV[2], KEYS[1], 1 + 2, tostring(KEYS[2]))", 2, 1),
            ("return redis.call('SET', KEYS[1], redis.call('GET', KEYS[2]), ARGV[1])", 3, 0),
            ("return tonumber(ARGV[1]) + redis.call('GET', KEYS[1])", 1, 1),
            ("return pcall(redis.call, 'GET', KEYS[1])", 0, 1),
            ("local call = redis.call return call('GET', KEYS[1])", 0, 1),
            ("return redis.call('SET', ARGV[2] and 'a' or 'b', KEYS[1])", 0, 1),
            ("return redis.acl_check_cmd('GET', KEYS[1])", 0, 1),
            ("return (function(...) return ... end)(KEYS[1])", 0, 1),
        ] {
            let folded = folded(source).expect("it compiles");
            let known: Vec<Known> = folded.places.iter().flatten().map(|place| place.known).collect();
            let found = known.iter().filter(|known| stands_in(known)).count();
            assert_eq!(found, arguments, "{source}");
            let found = known.iter().filter(|known| matches!(known, Known::Element(..))).count();
            assert_eq!(found, elements, "{source}");
        }
        for list in LISTS {
            for index in 1..=INDEX_MAX {
                assert_eq!(stood_for(stand_in(list, index)), Some((list, index as usize)));
            }
        }
        assert_eq!(stood_for(std::ptr::null_mut()), None);
    }

    /// What each instruction does is as before, and where it goes on.
    #[test]
    fn a_folded_chunk_does_the_same() {
        let source = "
            local log, n = {}, 0
            for i = 1, 3 do
                for _, key in ipairs({KEYS[1], KEYS[2]}) do
                    if i == 2 and redis.call('a', key) == 7 then redis.call('b') else n = n + redis.call('c', i) end
                    local inner = function(x) while x > 0 do x = x - redis.call('d', ARGV[1]) end return x end
                    log[#log + 1] = inner(20) .. (redis.pcall('e') and 'yes' or 'no')
                end
                repeat local done = redis.call('f') or redis.call('g', #ARGV) until done
            end
            return n .. table.concat(log, ',')";
        let result = |is_folded: bool| {
            // SAFETY: the state is this test's own; the values are where they were put.
            unsafe {
                let lua = luaL_newstate();
                luaL_openlibs(lua);
                crate::run::anchor_chunk_name(lua, c"@user_script".as_ptr());
                let globals = b"local names = ''
                    local call = function(name, x) names = names .. name .. tostring(x) return #names % 5 + 3 end
                    redis = {call = call, pcall = call, names = function() return names end}
                    KEYS, ARGV = {'k1', 'k2'}, {'a1'}
                    return redis.call, KEYS, ARGV";
                load(lua, globals, c"@user_script").expect("it compiles");
                lua_call(lua, 0, 3);
                load(lua, source.as_bytes(), c"@user_script").expect("it compiles");
                let folded = fold(dump(lua));
                if is_folded {
                    assert_eq!((folded.places.len(), folded.needs_lists), (2, [true, true]));
                    load_code(lua, &folded.code);
                    for slot in crate::layout::slots(lua, lua_gettop(lua), &folded.places) {
                        match slot.known {
                            Known::Call | Known::Pcall => lua_pushvalue(lua, 2),
                            Known::List(List::Keys) => lua_pushvalue(lua, 3),
                            Known::List(List::Argv) => lua_pushvalue(lua, 4),
                            Known::Element(List::Keys, index) | Known::Argument(List::Keys, index) => {
                                lua_rawgeti_(lua, 3, index as c_int);
                            }
                            Known::Element(List::Argv, index) | Known::Argument(List::Argv, index) => {
                                lua_rawgeti_(lua, 4, index as c_int);
                            }
                        }
                        crate::layout::set_slot(lua, &slot);
                        crate::layout::pop(lua);
                    }
                    // It finds no globals of these names.
                    load(lua, b"redis, KEYS, ARGV = nil", c"@user_script").expect("it compiles");
                    lua_call(lua, 0, 0);
                }
                lua_gc(lua, LUA_GCCOLLECT, 0);
                lua_call(lua, 0, 1);
                let text = bytes_at(lua, -1).expect("a string").to_vec();
                lua_close(lua);
                text
            }
        };
        assert_eq!(result(true), result(false));
    }

    /// What may be named in an error, or may come from elsewhere, stays as it is.
    #[test]
    fn other_uses_are_not_folded() {
        for source in [
            "",
            "return KEYS",
            "return KEYS + 1, KEYS .. 'x', -ARGV",
            "KEYS()",
            "return redis.sha1hex('')",
            "return redis['c' .. 'all']",
            "local r = redis return r.call",
            "return (x or redis).call('PING')",
            "local redis, KEYS = {}, {} return redis.call, KEYS[1]",
            "return (redis or x).call('PING')",
            "x = 1 return redis.call('PING')",
        ] {
            assert_eq!(counts(source).iter().sum::<usize>(), 0, "{source}");
        }
    }
}
