//! A module's type of values without a module: a number and a string, as that of the official test module `datatype`, with
//! data of its own in a file, as that of `testrdb`. It records what is asked of it.

use crate::types::module::{
    AuxPlace, DigestSink, KeyPlace, LoadSource, ModulePtr, ModuleType, ModuleTypeId, NotCopied, SaveSink,
};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What its values are.
pub type Value = (i64, Vec<u8>);

/// Values that copies of are refused.
pub const NOT_COPIED: i64 = 42;

pub struct StubType {
    name: &'static str,
    id: ModuleTypeId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the addresses that stand for them.
    values: BTreeMap<usize, Value>,
    made: usize,
    log: Vec<String>,
    before: Vec<u8>,
    after: Vec<u8>,
}

fn place(place: KeyPlace<'_>) -> String {
    let db = place.db.map_or("-".to_owned(), |db| db.to_string());
    format!("{db}:{}", place.key.unwrap_or(b"-").escape_ascii())
}

impl StubType {
    /// It lives for ever, as types do.
    pub fn new(name: &'static str) -> &'static StubType {
        let id = ModuleTypeId::of(name.as_bytes(), 1).expect("a good name");
        Box::leak(Box::new(StubType { name, id, state: Mutex::default() }))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().expect("no test panics in here"))
    }

    /// A new value.
    pub fn make(&self, value: Value) -> ModulePtr {
        self.with(|state| {
            state.made += 1;
            state.values.insert(state.made, value);
            ModulePtr(std::ptr::without_provenance_mut(state.made))
        })
    }

    pub fn value(&self, ptr: ModulePtr) -> Value {
        self.with(|state| state.values[&ptr.0.addr()].clone())
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.with(|state| state.values.len())
    }

    /// What was asked of it since the last call.
    pub fn take_log(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.log))
    }

    fn record(&self, line: String) {
        self.with(|state| state.log.push(line));
    }

    pub fn set_aux(&self, before: &[u8], after: &[u8]) {
        self.with(|state| (state.before, state.after) = (before.to_vec(), after.to_vec()));
    }

    pub fn aux(&self) -> (Vec<u8>, Vec<u8>) {
        self.with(|state| (state.before.clone(), state.after.clone()))
    }
}

impl ModuleType for StubType {
    fn name(&self) -> &'static str {
        self.name
    }

    fn id(&self) -> ModuleTypeId {
        self.id
    }

    fn save(&self, value: ModulePtr, at: KeyPlace<'_>, sink: &mut dyn SaveSink) {
        self.record(format!("save {}", place(at)));
        let (number, string) = self.value(value);
        sink.unsigned(number as u64);
        sink.string(&string);
    }

    fn load(&self, source: &mut dyn LoadSource, encver: u16, at: KeyPlace<'_>) -> Option<ModulePtr> {
        self.record(format!("load {encver} {}", place(at)));
        let value = (source.unsigned()? as i64, source.string()?);
        Some(self.make(value))
    }

    fn saves_aux(&self, when: AuxPlace) -> bool {
        let (before, after) = self.aux();
        match when {
            AuxPlace::BeforeKeys => !before.is_empty(),
            AuxPlace::AfterKeys => !after.is_empty(),
        }
    }

    fn save_aux(&self, when: AuxPlace, sink: &mut dyn SaveSink) {
        let (before, after) = self.aux();
        sink.unsigned(1);
        sink.string(match when {
            AuxPlace::BeforeKeys => &before,
            AuxPlace::AfterKeys => &after,
        });
    }

    fn load_aux(&self, source: &mut dyn LoadSource, encver: u16, when: AuxPlace) -> bool {
        self.record(format!("load_aux {encver} {when:?}"));
        let (Some(1), Some(text)) = (source.unsigned(), source.string()) else { return false };
        self.with(|state| match when {
            AuxPlace::BeforeKeys => state.before = text,
            AuxPlace::AfterKeys => state.after = text,
        });
        true
    }

    fn copy(&self, value: ModulePtr, from: KeyPlace<'_>, to: KeyPlace<'_>) -> Result<ModulePtr, NotCopied> {
        self.record(format!("copy {} {}", place(from), place(to)));
        let value = self.value(value);
        if value.0 == NOT_COPIED { Err(NotCopied::Failed) } else { Ok(self.make(value)) }
    }

    fn digest(&self, value: ModulePtr, _place: KeyPlace<'_>, sink: &mut dyn DigestSink) -> bool {
        let (number, string) = self.value(value);
        sink.element(number.to_string().as_bytes());
        sink.element(&string);
        sink.end_of_sequence();
        true
    }

    fn memory_usage(&self, value: ModulePtr, _place: KeyPlace<'_>, samples: usize) -> usize {
        1_000_000 + samples * 1000 + self.value(value).1.len()
    }

    fn free_effort(&self, value: ModulePtr, _place: KeyPlace<'_>) -> usize {
        usize::try_from(self.value(value).0).unwrap_or(1)
    }

    fn unlink(&self, _value: ModulePtr, at: KeyPlace<'_>) {
        self.record(format!("unlink {}", place(at)));
    }

    fn free(&self, value: ModulePtr) {
        let is_there = self.with(|state| state.values.remove(&value.0.addr()).is_some());
        assert!(is_there, "a value is freed once");
    }
}
