//! What a script or a function declares of itself: the flags of a shebang, or of `redis.register_function`.

use std::ops::BitOr;

/// A set of flags. What has not declared any, because it has no shebang, has [`ScriptFlags::COMPATIBLE`] alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScriptFlags(u8);

impl ScriptFlags {
    pub const NONE: ScriptFlags = ScriptFlags(0);
    /// It writes nothing.
    pub const NO_WRITES: ScriptFlags = ScriptFlags(1 << 0);
    /// It may run when there is no memory left.
    pub const ALLOW_OOM: ScriptFlags = ScriptFlags(1 << 1);
    /// It may run on a replica that has lost its master and serves no stale data.
    pub const ALLOW_STALE: ScriptFlags = ScriptFlags(1 << 2);
    pub const NO_CLUSTER: ScriptFlags = ScriptFlags(1 << 3);
    /// An EVAL script without a shebang: each of its commands is judged by itself, as before Redis 7.
    pub const COMPATIBLE: ScriptFlags = ScriptFlags(1 << 4);
    pub const ALLOW_CROSS_SLOT_KEYS: ScriptFlags = ScriptFlags(1 << 5);

    /// The names by which scripts and users call them, in Redis' order.
    const NAMES: [(ScriptFlags, &'static str); 5] = [
        (ScriptFlags::NO_WRITES, "no-writes"),
        (ScriptFlags::ALLOW_OOM, "allow-oom"),
        (ScriptFlags::ALLOW_STALE, "allow-stale"),
        (ScriptFlags::NO_CLUSTER, "no-cluster"),
        (ScriptFlags::ALLOW_CROSS_SLOT_KEYS, "allow-cross-slot-keys"),
    ];

    /// The flag of a name, in any case.
    pub fn named(name: &[u8]) -> Option<ScriptFlags> {
        let is_it = |(_, text): &&(ScriptFlags, &str)| name.eq_ignore_ascii_case(text.as_bytes());
        ScriptFlags::NAMES.iter().find(is_it).map(|&(flag, _)| flag)
    }

    pub fn has(self, flag: ScriptFlags) -> bool {
        self.0 & flag.0 != 0
    }

    /// Whether it declares that it writes nothing.
    pub fn is_read_only(self) -> bool {
        self.has(ScriptFlags::NO_WRITES)
    }

    /// The names of its flags.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        ScriptFlags::NAMES.iter().filter(move |&&(flag, _)| self.has(flag)).map(|&(_, name)| name)
    }
}

impl BitOr for ScriptFlags {
    type Output = ScriptFlags;

    fn bitor(self, other: ScriptFlags) -> ScriptFlags {
        ScriptFlags(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_names_its_flags_in_order() {
        let set = ScriptFlags::named(b"allow-OOM").unwrap() | ScriptFlags::named(b"no-writes").unwrap();
        assert_eq!(set.names().collect::<Vec<_>>(), ["no-writes", "allow-oom"]);
        assert!(set.is_read_only() && !set.has(ScriptFlags::ALLOW_STALE));
        assert_eq!(ScriptFlags::named(b"no-write"), None);
        assert_eq!(ScriptFlags::COMPATIBLE.names().count(), 0);
    }
}
