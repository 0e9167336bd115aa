//! What DEBUG DIGEST and DIGEST-VALUE tell of keys and values: the numbers of Redis, so that two servers can be compared.
//!
//! A digest is twenty bytes. *Xoring* bytes into it is exclusive or with their SHA-1, so the order does not matter;
//! *mixing* them in hashes the result again, so it does. A value's digest starts from zero, or from its key's, and mixes in
//! its type and what it holds; whether there is a time to live is xored, not when it ends. The server's digest mixes in, for
//! each database that has keys, its number, and then xors the digests of its keys.

use crate::protocol::Reply;
use crate::types::{Entry, ValueRef};
use sha1_smol::Sha1;

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Digest([u8; 20]);

/// Redis' numbers for types.
const TYPE_STRING: u32 = 0;

impl Digest {
    fn combine(&mut self, other: Digest) {
        self.0.iter_mut().zip(other.0).for_each(|(byte, other)| *byte ^= other);
    }

    fn xor(&mut self, bytes: &[u8]) {
        self.combine(Digest(Sha1::from(bytes).digest().bytes()));
    }

    fn mix(&mut self, bytes: &[u8]) {
        self.xor(bytes);
        self.0 = Sha1::from(self.0).digest().bytes();
    }

    fn mix_number(&mut self, number: u32) {
        self.mix(&number.to_be_bytes());
    }

    /// An entry's type, value and whether it has a time to live; not its encoding.
    fn add_value(&mut self, entry: Entry<'_>) {
        match entry.value() {
            ValueRef::Int(number) => self.mix_string(itoa::Buffer::new().format(number).as_bytes()),
            ValueRef::Str(text) => self.mix_string(text),
            ValueRef::Packed(..) | ValueRef::Object(_) => self.mix_number(TYPE_STRING),
        }
        if entry.expire_at_ms().is_some() {
            self.xor(b"!!expire!!");
        }
    }

    fn mix_string(&mut self, text: &[u8]) {
        self.mix_number(TYPE_STRING);
        self.mix(text);
    }

    /// Shares of shards, all but one of which are zero, add up to a key's digest.
    pub fn add_share(&mut self, share: Digest) {
        self.combine(share);
    }

    /// DIGEST-VALUE's of an entry.
    pub fn of_value(entry: Entry<'_>) -> Digest {
        let mut digest = Digest::default();
        digest.add_value(entry);
        digest
    }

    /// Of a key with its value.
    fn of_key(entry: Entry<'_>) -> Digest {
        let mut digest = Digest::default();
        digest.mix(entry.key());
        digest.add_value(entry);
        digest
    }

    /// The digest that [`write`](Digest::write) wrote.
    pub fn parse(reply: &[u8]) -> Digest {
        let hex = reply.strip_prefix(b"+").and_then(|rest| rest.strip_suffix(b"\r\n"));
        let hex = hex.filter(|hex| hex.len() == 40).expect("a digest has 40 digits");
        let digit = |byte: u8| char::from(byte).to_digit(16).expect("its digits are hexadecimal") as u8;
        Digest(std::array::from_fn(|at| digit(hex[2 * at]) << 4 | digit(hex[2 * at + 1])))
    }

    /// A status of 40 hexadecimal digits.
    pub fn write(&self, reply: &mut Reply<'_>) {
        let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        reply.simple(&hex);
    }
}

/// The keys of one database, or of one shard's part of it.
#[derive(Clone, Copy, Default)]
pub struct DbDigest {
    has_keys: bool,
    keys: Digest,
}

impl DbDigest {
    pub fn add_key(&mut self, entry: Entry<'_>) {
        self.has_keys = true;
        self.keys.xor(&Digest::of_key(entry).0);
    }

    /// A shard's part that has keys, as one digest. `None`: it has none.
    pub fn share(self) -> Option<Digest> {
        self.has_keys.then_some(self.keys)
    }

    pub fn add_share(&mut self, share: Digest) {
        self.has_keys = true;
        self.keys.combine(share);
    }
}

/// DIGEST's, of all databases in order.
pub fn of_databases(dbs: &[DbDigest]) -> Digest {
    let mut digest = Digest::default();
    for (number, db) in dbs.iter().enumerate().filter(|(_, db)| db.has_keys) {
        digest.mix_number(number as u32);
        digest.combine(db.keys);
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NewValue, SetExpire, Table, hash_key};

    fn hex(digest: Digest) -> String {
        digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn with_entry<T>(key: &[u8], value: NewValue<'_>, expire: SetExpire, see: impl Fn(Entry<'_>) -> T) -> T {
        let mut table = Table::new();
        let hash = hash_key(key);
        table.add(hash, key, value, expire);
        see(table.get(hash, key).expect("it was added"))
    }

    /// Redis 7.0.15's, after SET key:0 value:0; SELECT 3; SET key:1 12 EX 100.
    #[test]
    fn digests_are_those_of_redis() {
        let (mut first, mut fourth) = (DbDigest::default(), DbDigest::default());
        assert_eq!(hex(of_databases(&[first; 16])), "0".repeat(40));
        let value = with_entry(b"key:0", NewValue::Str(b"value:0"), SetExpire::Clear, Digest::of_value);
        assert_eq!(hex(value), "c15f34c747bf411833c10208c03e1da1bb7da7cf");
        let share = with_entry(b"key:0", NewValue::Str(b"value:0"), SetExpire::Clear, |entry| {
            let mut db = DbDigest::default();
            db.add_key(entry);
            db.share().expect("it has a key")
        });
        first.add_share(share);
        assert_eq!(hex(of_databases(&[first])), "0f7053e02980da31a84b3242f00dfef0a32f9f32");

        for value in [NewValue::Int(12), NewValue::Raw(b"12")] {
            let digest = with_entry(b"key:1", value, SetExpire::At(1), Digest::of_value);
            assert_eq!(hex(digest), "83df3a94c43338a2db2a05ddb5dbb794b842c619");
        }
        let share = with_entry(b"key:1", NewValue::Int(12), SetExpire::At(1), |entry| {
            let mut db = DbDigest::default();
            db.add_key(entry);
            db.share().expect("it has a key")
        });
        fourth.add_share(share);
        let none = DbDigest::default();
        assert_eq!(
            hex(of_databases(&[first, none, none, fourth])),
            "62c674503be933e076455593ec8abc26c1ada492"
        );
    }
}
