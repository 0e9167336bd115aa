//! The events of keyspace notifications.
//!
//! Each change of a key names its [`Event`], so that observers of the key can be told what happened. The classes are
//! those that `notify-keyspace-events` selects by letters.

use crate::config::NotifyEvents;
use std::sync::Mutex;

/// A class of events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventClass {
    /// Events of keys of any type.
    Generic,
    String,
    Set,
    Hash,
    List,
    ZSet,
    Stream,
    /// A key expired.
    Expired,
    /// A key was removed to make room.
    Evicted,
    /// A key was added. The letter `A` does not include this class.
    New,
    /// What a module calls an event of its own.
    Module,
    /// A key that was to be read is not there. The letter `A` does not include this class.
    KeyMiss,
    /// A key was loaded from a file. Only modules are told of it.
    Loaded,
}

impl EventClass {
    /// The bits of those whose events are told within the command that has caused them: what writes brings them about.
    pub const TOLD_WITHIN: u32 = {
        let apart = EventClass::KeyMiss.bit() | EventClass::Evicted.bit() | EventClass::Loaded.bit();
        ((EventClass::Loaded.bit() << 1) - 1) & !apart
    };

    /// Those that can be published, each with its flag in `notify-keyspace-events`.
    const PUBLISHED: [(EventClass, u16); 12] = [
        (EventClass::Generic, NotifyEvents::GENERIC),
        (EventClass::String, NotifyEvents::STRING),
        (EventClass::Set, NotifyEvents::SET),
        (EventClass::Hash, NotifyEvents::HASH),
        (EventClass::List, NotifyEvents::LIST),
        (EventClass::ZSet, NotifyEvents::ZSET),
        (EventClass::Stream, NotifyEvents::STREAM),
        (EventClass::Expired, NotifyEvents::EXPIRED),
        (EventClass::Evicted, NotifyEvents::EVICTED),
        (EventClass::New, NotifyEvents::NEW),
        (EventClass::Module, NotifyEvents::MODULE),
        (EventClass::KeyMiss, NotifyEvents::KEY_MISS),
    ];

    /// The bits of the classes that are published; 0 if there is no kind of channel for them.
    pub(super) fn published(events: NotifyEvents) -> u32 {
        if !events.contains(NotifyEvents::KEYSPACE) && !events.contains(NotifyEvents::KEYEVENT) {
            return 0;
        }
        let classes = EventClass::PUBLISHED.iter().filter(|(_, flag)| events.contains(*flag));
        classes.fold(0, |bits, (class, _)| bits | class.bit())
    }

    /// A bit of its own.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Its letter in `notify-keyspace-events`, if it has one.
    pub const fn letter(self) -> Option<u8> {
        Some(match self {
            EventClass::Generic => b'g',
            EventClass::String => b'$',
            EventClass::Set => b's',
            EventClass::Hash => b'h',
            EventClass::List => b'l',
            EventClass::ZSet => b'z',
            EventClass::Stream => b't',
            EventClass::Expired => b'x',
            EventClass::Evicted => b'e',
            EventClass::New => b'n',
            EventClass::Module => b'd',
            EventClass::KeyMiss => b'm',
            EventClass::Loaded => return None,
        })
    }
}

#[derive(PartialEq, Eq, Debug)]
struct Named {
    name: &'static str,
    class: EventClass,
}

/// Something that has happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event(&'static Named);

macro_rules! events {
    ($($event:ident = $class:ident $name:literal;)*) => {
        impl Event {
            $(pub const $event: Event = Event(&Named { name: $name, class: EventClass::$class });)*
        }
    };
}

events! {
    COPY_TO = Generic "copy_to";
    DEL = Generic "del";
    EXPIRE = Generic "expire";
    MOVE_FROM = Generic "move_from";
    MOVE_TO = Generic "move_to";
    PERSIST = Generic "persist";
    RENAME_FROM = Generic "rename_from";
    RENAME_TO = Generic "rename_to";
    RESTORE = Generic "restore";
    KEY_MISS = KeyMiss "keymiss";
    LOADED = Loaded "loaded";
    APPEND = String "append";
    INCRBY = String "incrby";
    INCRBYFLOAT = String "incrbyfloat";
    SET = String "set";
    SETRANGE = String "setrange";
    SADD = Set "sadd";
    SDIFFSTORE = Set "sdiffstore";
    SINTERSTORE = Set "sinterstore";
    SPOP = Set "spop";
    SREM = Set "srem";
    SUNIONSTORE = Set "sunionstore";
    HDEL = Hash "hdel";
    HINCRBY = Hash "hincrby";
    HINCRBYFLOAT = Hash "hincrbyfloat";
    HSET = Hash "hset";
    LINSERT = List "linsert";
    LPOP = List "lpop";
    LPUSH = List "lpush";
    LREM = List "lrem";
    LSET = List "lset";
    LTRIM = List "ltrim";
    RPOP = List "rpop";
    RPUSH = List "rpush";
    SORTSTORE = List "sortstore";
    ZADD = ZSet "zadd";
    ZDIFFSTORE = ZSet "zdiffstore";
    ZINCR = ZSet "zincr";
    ZINTERSTORE = ZSet "zinterstore";
    ZPOPMAX = ZSet "zpopmax";
    ZPOPMIN = ZSet "zpopmin";
    ZRANGESTORE = ZSet "zrangestore";
    ZREM = ZSet "zrem";
    ZREMRANGEBYLEX = ZSet "zremrangebylex";
    ZREMRANGEBYRANK = ZSet "zremrangebyrank";
    ZREMRANGEBYSCORE = ZSet "zremrangebyscore";
    ZUNIONSTORE = ZSet "zunionstore";
    XADD = Stream "xadd";
    XDEL = Stream "xdel";
    XGROUP_CREATE = Stream "xgroup-create";
    XGROUP_CREATECONSUMER = Stream "xgroup-createconsumer";
    XGROUP_DELCONSUMER = Stream "xgroup-delconsumer";
    XGROUP_DESTROY = Stream "xgroup-destroy";
    XGROUP_SETID = Stream "xgroup-setid";
    XSETID = Stream "xsetid";
    XTRIM = Stream "xtrim";
    EXPIRED = Expired "expired";
    EVICTED = Evicted "evicted";
    NEW = New "new";
    // A module has changed the key. What it calls that is an event of its own, if it says so.
    UNNAMED = Module "";
}

impl Event {
    /// An event that a module reports. The name is kept for ever, once for each class: modules have few.
    pub fn of_module(class: EventClass, name: &str) -> Event {
        static NAMED: Mutex<Vec<&'static Named>> = Mutex::new(Vec::new());
        let mut named = NAMED.lock().expect("no holder of the names panics");
        if let Some(known) = named.iter().find(|known| known.class == class && known.name == name) {
            return Event(known);
        }
        let new: &'static Named = Box::leak(Box::new(Named { name: Box::leak(name.into()), class }));
        named.push(new);
        Event(new)
    }

    /// The name in a notification; empty: there is no notification.
    pub const fn name(self) -> &'static str {
        self.0.name
    }

    pub const fn class(self) -> EventClass {
        self.0.class
    }
}
