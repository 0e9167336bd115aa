//! The scripts of the process, by the SHA-1 of their text.
//!
//! Those that SCRIPT LOAD brought stay until SCRIPT FLUSH. Those that came by EVAL alone are evicted, the one that was not
//! run for the longest time first, when there are more than [`EVALED_MAX`]: clients that put values into the text of their
//! scripts instead of ARGV would fill the memory otherwise.
//!
//! A shard keeps the scripts that it has compiled, and looks a script up here only when it does not have it. Whether a
//! script is still known is marked on the script itself ([`Script::is_known`]), so that running a known script takes no
//! lock. *Last use* is measured in scripts that have come since ([`Script::touch`]), which is as exact as eviction needs, and
//! lets shards that run the same script over and over leave it alone.

use super::shebang::ScriptHeader;
use crate::command::table::CommandTable;
use ahash::AHashMap;
use sha1_smol::Sha1;
use shardis_scripting::{KeyUse, script_key_use};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// How many scripts that came by EVAL alone are kept.
pub const EVALED_MAX: usize = 500;

/// What a script takes besides its text.
const SCRIPT_OVERHEAD_BYTES: usize = size_of::<Script>() + size_of::<(Sha, Entry)>() + 3 * size_of::<usize>();

/// The SHA-1 of a script's text. Shown in lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Sha(pub [u8; 20]);

impl Sha {
    pub fn of(text: &[u8]) -> Sha {
        Sha(Sha1::from(text).digest().bytes())
    }

    /// Of 40 hexadecimal digits in any case.
    pub fn parse(hex: &[u8]) -> Option<Sha> {
        let digits: &[u8; 40] = hex.try_into().ok()?;
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Sha(bytes))
    }

    /// Its 40 digits.
    pub fn to_hex(self) -> [u8; 40] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 40];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        hex
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A script that the process knows, or has known.
#[derive(Debug)]
pub struct Script {
    pub sha: Sha,
    pub text: Box<[u8]>,
    pub header: ScriptHeader,
    key_use: OnceLock<KeyUse>,
    is_forgotten: AtomicBool,
    /// How many scripts had come when it was run last. `u64::MAX`: it is not evicted.
    used_at: AtomicU64,
}

impl Script {
    /// What is known of the keys that it uses. It is found out when it is first asked for: O(bytes).
    pub fn key_use(&self, table: &CommandTable) -> &KeyUse {
        self.key_use.get_or_init(|| script_key_use(&self.text, table))
    }

    /// Whether it may be run by its SHA: it was not flushed or evicted.
    #[inline]
    pub fn is_known(&self) -> bool {
        !self.is_forgotten.load(Ordering::Acquire)
    }

    /// To be called whenever it is run.
    #[inline]
    pub fn touch(&self, registry: &ScriptRegistry) {
        let (used_at, now) = (self.used_at.load(Ordering::Relaxed), registry.count_added());
        if used_at < now {
            // If it is loaded at this moment, it stays.
            let _ = self.used_at.compare_exchange(used_at, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn len_bytes(&self) -> usize {
        self.text.len() + SCRIPT_OVERHEAD_BYTES
    }
}

/// How long a script is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// It was sent by EVAL.
    UntilEvicted,
    /// It was loaded by SCRIPT LOAD.
    UntilFlushed,
}

/// The scripts of the process.
#[derive(Default)]
pub struct ScriptRegistry {
    inner: Mutex<Inner>,
    added: AtomicU64,
    evicted: AtomicU64,
    /// How often all scripts were flushed.
    flushes: AtomicU64,
}

#[derive(Default)]
struct Inner {
    by_sha: AHashMap<Sha, Entry>,
    /// Of those that may be evicted: when each was last used, as far as is known here.
    evictable: BTreeSet<(u64, Sha)>,
    len_bytes: usize,
}

struct Entry {
    script: Arc<Script>,
    /// What stands in `evictable` for it.
    listed_at: Option<u64>,
}

impl ScriptRegistry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the scripts panics")
    }

    pub fn get(&self, sha: &Sha) -> Option<Arc<Script>> {
        self.lock().by_sha.get(sha).map(|entry| Arc::clone(&entry.script))
    }

    pub fn contains(&self, sha: &Sha) -> bool {
        self.lock().by_sha.contains_key(sha)
    }

    /// Adds a script that can be compiled, unless it is there. Returns the one that is there.
    pub fn add(&self, sha: Sha, text: &[u8], header: ScriptHeader, keep: Keep) -> Arc<Script> {
        let mut inner = self.lock();
        if let Some(entry) = inner.by_sha.get_mut(&sha) {
            let script = Arc::clone(&entry.script);
            if keep == Keep::UntilFlushed
                && let Some(listed_at) = entry.listed_at.take()
            {
                script.used_at.store(u64::MAX, Ordering::Relaxed);
                inner.evictable.remove(&(listed_at, sha));
            }
            return script;
        }
        let now = self.added.fetch_add(1, Ordering::Relaxed) + 1;
        let listed_at = (keep == Keep::UntilEvicted).then_some(now);
        let used_at = AtomicU64::new(listed_at.unwrap_or(u64::MAX));
        let is_forgotten = AtomicBool::new(false);
        let script = Arc::new(Script {
            sha,
            text: text.into(),
            header,
            key_use: OnceLock::new(),
            is_forgotten,
            used_at,
        });
        inner.len_bytes += script.len_bytes();
        inner.by_sha.insert(sha, Entry { script: Arc::clone(&script), listed_at });
        inner.evictable.extend(listed_at.map(|at| (at, sha)));
        while inner.evictable.len() > EVALED_MAX {
            self.evict(&mut inner);
        }
        script
    }

    /// Evicts the script that was not used for the longest time, or, if the first one in the list was used meanwhile, puts
    /// that one where it belongs.
    fn evict(&self, inner: &mut Inner) {
        let (listed_at, sha) = inner.evictable.pop_first().expect("the caller has looked");
        let entry = inner.by_sha.get_mut(&sha).expect("what is listed is there");
        let used_at = entry.script.used_at.load(Ordering::Relaxed);
        if used_at > listed_at {
            entry.listed_at = Some(used_at);
            inner.evictable.insert((used_at, sha));
            return;
        }
        entry.script.is_forgotten.store(true, Ordering::Release);
        inner.len_bytes -= entry.script.len_bytes();
        inner.by_sha.remove(&sha);
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets all scripts.
    pub fn flush(&self) {
        let mut inner = self.lock();
        let old = std::mem::take(&mut *inner);
        old.by_sha.values().for_each(|entry| entry.script.is_forgotten.store(true, Ordering::Release));
        self.flushes.fetch_add(1, Ordering::Release);
    }

    pub fn len(&self) -> usize {
        self.lock().by_sha.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the scripts take.
    pub fn len_bytes(&self) -> usize {
        self.lock().len_bytes
    }

    /// How many scripts have come so far.
    #[inline]
    pub fn count_added(&self) -> u64 {
        self.added.load(Ordering::Relaxed)
    }

    pub fn count_evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// CONFIG RESETSTAT.
    pub fn reset_evicted(&self) {
        self.evicted.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub fn count_flushes(&self) -> u64 {
        self.flushes.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(registry: &ScriptRegistry, text: &str, keep: Keep) -> Arc<Script> {
        let text = text.as_bytes();
        registry.add(Sha::of(text), text, ScriptHeader::parse(text).unwrap(), keep)
    }

    #[test]
    fn a_sha_is_read_in_any_case_and_shown_in_lower_case() {
        let sha = Sha::of(b"return 1");
        let hex = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        assert_eq!((sha.to_string().as_str(), sha.to_hex().as_slice()), (hex, hex.as_bytes()));
        assert_eq!(Sha::parse(hex.to_ascii_uppercase().as_bytes()), Some(sha));
        assert_eq!(Sha::parse(&hex.as_bytes()[1..]), None);
        assert_eq!(Sha::parse(hex.replace('a', "g").as_bytes()), None);
    }

    #[test]
    fn a_script_is_there_once_until_it_is_flushed() {
        let registry = ScriptRegistry::default();
        let script = add(&registry, "return 1", Keep::UntilEvicted);
        assert!(Arc::ptr_eq(&script, &add(&registry, "return 1", Keep::UntilEvicted)));
        assert_eq!(registry.len(), 1);
        assert!(registry.len_bytes() > "return 1".len());

        registry.flush();
        assert!(!script.is_known() && !registry.contains(&script.sha));
        assert_eq!((registry.len(), registry.len_bytes(), registry.count_flushes()), (0, 0, 1));
    }

    #[test]
    fn the_script_that_was_not_run_for_longest_is_evicted() {
        let registry = ScriptRegistry::default();
        let scripts: Vec<_> =
            (0..EVALED_MAX).map(|n| add(&registry, &format!("return {n}"), Keep::UntilEvicted)).collect();
        scripts[0].touch(&registry);
        add(&registry, "return 'one more'", Keep::UntilEvicted);
        assert!(scripts[0].is_known() && !scripts[1].is_known() && scripts[2].is_known());
        assert_eq!((registry.len(), registry.count_evicted()), (EVALED_MAX, 1));
        // It is a new script when it comes again.
        assert!(add(&registry, "return 1", Keep::UntilEvicted).is_known());
        assert!(!scripts[2].is_known());
    }

    #[test]
    fn a_loaded_script_is_not_evicted_even_if_it_was_evaled_first() {
        let registry = ScriptRegistry::default();
        let loaded = add(&registry, "return 'loaded'", Keep::UntilFlushed);
        let evaled = add(&registry, "return 'evaled'", Keep::UntilEvicted);
        assert!(Arc::ptr_eq(&evaled, &add(&registry, "return 'evaled'", Keep::UntilFlushed)));
        evaled.touch(&registry);
        for n in 0..2 * EVALED_MAX {
            add(&registry, &format!("return {n}"), Keep::UntilEvicted);
        }
        assert!(loaded.is_known() && evaled.is_known());
        assert_eq!(registry.len(), EVALED_MAX + 2);
    }
}
