//! What DEBUG DIGEST and DIGEST-VALUE tell of keys and values: the numbers of Redis, so that two servers can be compared.
//!
//! A digest is twenty bytes. *Xoring* bytes into it is exclusive or with their SHA-1, so the order does not matter;
//! *mixing* them in hashes the result again, so it does. A value's digest starts from zero, or from its key's, and mixes in
//! its type and what it holds; whether there is a time to live is xored, not when it ends. The server's digest mixes in, for
//! each database that has keys, its number, and then xors the digests of its keys.

use crate::protocol::Reply;
use crate::protocol::number::F64Text;
use crate::types::hash::HashRef;
use crate::types::intset::IntSet;
use crate::types::listpack::{Digits, Listpack};
use crate::types::module::{DigestSink, KeyPlace};
use crate::types::stream::{Stream, StreamId};
use crate::types::zset::packed::Packed;
use crate::types::{Collection, Entry, Object, PackedKind, ValueRef, ValueType};
use sha1_smol::Sha1;

#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Digest([u8; 20]);

/// Redis' number of a type.
fn type_number(value_type: ValueType) -> u32 {
    match value_type {
        ValueType::String => 0,
        ValueType::List => 1,
        ValueType::Set => 2,
        ValueType::ZSet => 3,
        ValueType::Hash => 4,
        ValueType::Module(_) => 5,
        ValueType::Stream => 6,
    }
}

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
    fn add_value(&mut self, db: u32, entry: Entry<'_>) {
        let value = entry.value();
        self.mix_number(type_number(value.value_type()));
        match value {
            ValueRef::Int(number) => self.mix(itoa::Buffer::new().format(number).as_bytes()),
            ValueRef::Str(text) => self.mix(text),
            ValueRef::Packed(kind, bytes) => self.add_packed(kind, bytes),
            ValueRef::Object(object) => self.add_object(object, KeyPlace::of(db, entry.key())),
        }
        if entry.expire_at_ms().is_some() {
            self.xor(b"!!expire!!");
        }
    }

    /// The entries of a stream; its consumer groups are no part of the digest.
    fn add_stream(&mut self, stream: &Stream) {
        let [mut name_digits, mut value_digits] = [Digits::new(), Digits::new()];
        for entry in stream.log.range(StreamId::MIN, StreamId::MAX) {
            self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
            for (name, value) in entry.fields() {
                self.mix(name.bytes(&mut name_digits));
                self.mix(value.bytes(&mut value_digits));
            }
        }
    }

    fn add_packed(&mut self, kind: PackedKind, bytes: &[u8]) {
        let mut digits = [Digits::new(), Digits::new()];
        let items = || Listpack::new(bytes).iter().map(|(_, item)| item);
        match kind {
            PackedKind::List => items().for_each(|item| self.mix(item.bytes(&mut digits[0]))),
            PackedKind::Set => items().for_each(|item| self.xor(item.bytes(&mut digits[0]))),
            PackedKind::IntSet => {
                IntSet::new(bytes).iter().for_each(|number| self.xor(digits[0].format(number).as_bytes()));
            }
            PackedKind::Hash => {
                let mut items = items();
                while let (Some(field), Some(value)) = (items.next(), items.next()) {
                    let [first, second] = &mut digits;
                    self.add_pair(field.bytes(first), value.bytes(second));
                }
            }
            PackedKind::ZSet => {
                let set = Packed::new(bytes);
                set.iter(0..set.len()).for_each(|(member, score)| {
                    self.add_member(member.bytes(&mut digits[0]), score);
                });
            }
        }
    }

    fn add_object(&mut self, object: &Object, place: KeyPlace<'_>) {
        match object {
            Object::List(list) => list.walk(0, |item| {
                self.mix(item.bytes(&mut Digits::new()));
                true
            }),
            Object::Set(members) => members.iter().for_each(|(member, _)| self.xor(member)),
            Object::Hash(hash) => {
                let [mut first, mut second] = [Digits::new(), Digits::new()];
                HashRef::Big(hash).for_each(|field, value| {
                    self.add_pair(field.bytes(&mut first), value.bytes(&mut second));
                });
            }
            Object::ZSet(set) => {
                set.iter(0..set.len()).for_each(|(member, score)| self.add_member(member, score));
            }
            Object::Stream(stream) => self.add_stream(stream),
            Object::Module(value) => {
                let mut of_module = ModuleDigest::default();
                if value.digest(place, &mut of_module) {
                    self.xor(&of_module.all.0);
                }
            }
        }
    }

    /// A field and its value, which stand at no place.
    fn add_pair(&mut self, field: &[u8], value: &[u8]) {
        let mut pair = Digest::default();
        pair.mix(field);
        pair.mix(value);
        self.xor(&pair.0);
    }

    /// A member of a sorted set.
    fn add_member(&mut self, member: &[u8], score: f64) {
        self.add_pair(member, F64Text::new(score).as_bytes());
    }

    /// Shares of shards, all but one of which are zero, add up to a key's digest.
    pub fn add_share(&mut self, share: Digest) {
        self.combine(share);
    }

    /// DIGEST-VALUE's of an entry.
    pub fn of_value(db: u32, entry: Entry<'_>) -> Digest {
        let mut digest = Digest::default();
        digest.add_value(db, entry);
        digest
    }

    /// Of a key with its value.
    fn of_key(db: u32, entry: Entry<'_>) -> Digest {
        let mut digest = Digest::default();
        digest.mix(entry.key());
        digest.add_value(db, entry);
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

/// What a module tells of its value: sequences of elements.
#[derive(Default)]
struct ModuleDigest {
    sequence: Digest,
    all: Digest,
}

impl DigestSink for ModuleDigest {
    fn element(&mut self, bytes: &[u8]) {
        self.sequence.mix(bytes);
    }

    fn end_of_sequence(&mut self) {
        self.all.xor(&std::mem::take(&mut self.sequence).0);
    }
}

/// The keys of one database, or of one shard's part of it.
#[derive(Clone, Copy, Default)]
pub struct DbDigest {
    has_keys: bool,
    keys: Digest,
}

impl DbDigest {
    pub fn add_key(&mut self, db: u32, entry: Entry<'_>) {
        self.has_keys = true;
        self.keys.xor(&Digest::of_key(db, entry).0);
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
    use crate::types::intset::IntSetMut;
    use crate::types::listpack::{self, ListpackMut};
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
        let value = with_entry(b"key:0", NewValue::Str(b"value:0"), SetExpire::Clear, |entry| {
            Digest::of_value(0, entry)
        });
        assert_eq!(hex(value), "c15f34c747bf411833c10208c03e1da1bb7da7cf");
        let share = with_entry(b"key:0", NewValue::Str(b"value:0"), SetExpire::Clear, |entry| {
            let mut db = DbDigest::default();
            db.add_key(0, entry);
            db.share().expect("it has a key")
        });
        first.add_share(share);
        assert_eq!(hex(of_databases(&[first])), "0f7053e02980da31a84b3242f00dfef0a32f9f32");

        for value in [NewValue::Int(12), NewValue::Raw(b"12")] {
            let digest = with_entry(b"key:1", value, SetExpire::At(1), |entry| Digest::of_value(0, entry));
            assert_eq!(hex(digest), "83df3a94c43338a2db2a05ddb5dbb794b842c619");
        }
        let share = with_entry(b"key:1", NewValue::Int(12), SetExpire::At(1), |entry| {
            let mut db = DbDigest::default();
            db.add_key(0, entry);
            db.share().expect("it has a key")
        });
        fourth.add_share(share);
        let none = DbDigest::default();
        assert_eq!(
            hex(of_databases(&[first, none, none, fourth])),
            "62c674503be933e076455593ec8abc26c1ada492"
        );
    }

    /// Redis 7.0.15's, after RPUSH l a 12 bb; HSET h f v 5 6; SADD s x y zz; SADD i 1 2 300; ZADD z 1 a 2.5 b -3 5.
    #[test]
    fn digests_of_collections_are_those_of_redis() {
        let pack = |elements: &[&[u8]]| {
            let mut bytes = listpack::EMPTY.to_vec();
            ListpackMut::new(&mut bytes).append_many(elements.iter().copied());
            bytes
        };
        let mut integers = PackedKind::IntSet.empty().to_vec();
        for number in [1, 2, 300] {
            IntSetMut::new(&mut integers).insert(number);
        }
        let zset: &[&[u8]] = &[b"5", b"-3", b"a", b"1", b"b", b"2.5"];
        for (kind, bytes, digest) in [
            (PackedKind::List, pack(&[b"a", b"12", b"bb"]), "43e2e1f9f32151eb1940b4c2b3c590af47cc6a47"),
            (PackedKind::Hash, pack(&[b"f", b"v", b"5", b"6"]), "923355216bda754102f5e0ed4e85a2b30919cfed"),
            (PackedKind::Set, pack(&[b"x", b"y", b"zz"]), "e15ea5685b9353e2e2f3facf4e86c3b220c28269"),
            (PackedKind::IntSet, integers, "bff1310353f341fe4488c7323df3673679c04f02"),
            (PackedKind::ZSet, pack(zset), "4f0f4815196d69ced7704c600e71783cd91434a9"),
        ] {
            let value = NewValue::Packed(kind, &bytes);
            assert_eq!(
                hex(with_entry(b"k", value, SetExpire::Clear, |entry| Digest::of_value(0, entry))),
                digest,
                "{kind:?}"
            );
        }
    }
}
