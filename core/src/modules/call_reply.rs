//! `RedisModuleCallReply`: what a command that a module has called has replied. It keeps the bytes of the reply, and takes
//! them apart when the module looks into it.

use super::context::Context;
use crate::protocol::number::{parse_f64, parse_i64};
use crate::protocol::skip::skip_reply;
use shardis_modules_api::abi::*;
use std::cell::OnceCell;
use std::ffi::c_int;
use std::ptr::NonNull;

/// A reply, or a part of one.
pub struct CallReply {
    /// The whole value in RESP, what is in it included. Those of a part are its root's.
    bytes: Bytes,
    /// What it has in it, once that was looked at.
    parts: OnceCell<Parts>,
    /// The context that frees it, if the module does not.
    automatic_of: Option<NonNull<Context<'static>>>,
}

enum Bytes {
    Owned(Vec<u8>),
    /// Within the bytes of the root, which outlives its parts.
    Part {
        start: *const u8,
        len: usize,
    },
}

#[derive(Default)]
struct Parts {
    /// The elements, of a map its keys and values in turn. Boxed, because the module has pointers to them.
    #[allow(clippy::vec_box, reason = "the module has pointers to them")]
    elements: Vec<Box<CallReply>>,
    attribute: Option<Box<CallReply>>,
}

impl CallReply {
    pub(super) fn new(reply: Vec<u8>) -> CallReply {
        CallReply { bytes: Bytes::Owned(reply), parts: OnceCell::new(), automatic_of: None }
    }

    fn part(bytes: &[u8]) -> Box<CallReply> {
        let bytes = Bytes::Part { start: bytes.as_ptr(), len: bytes.len() };
        Box::new(CallReply { bytes, parts: OnceCell::new(), automatic_of: None })
    }

    /// A reply for a module, which the context frees if the module wants that.
    pub(super) fn hand_out(reply: Vec<u8>, ctx: &mut Context<'static>) -> *mut CallReply {
        let pointer = NonNull::from(&mut *ctx);
        let mut reply = CallReply::new(reply);
        reply.automatic_of = ctx.automatic.is_some().then_some(pointer);
        let reply = reply.into_raw();
        if let Some(automatic) = &mut ctx.automatic {
            automatic.replies.push(reply);
        }
        reply
    }

    fn into_raw(self) -> *mut CallReply {
        Box::into_raw(Box::new(self))
    }

    /// Frees a reply. A part is freed with its root.
    ///
    /// # Safety
    /// A root comes from [`into_raw`](CallReply::into_raw), and is not used any more.
    pub(super) unsafe fn free(reply: *mut CallReply) {
        // SAFETY: it is alive.
        if matches!(unsafe { &*reply }.bytes, Bytes::Owned(_)) {
            // SAFETY: as promised.
            let root = unsafe { Box::from_raw(reply) };
            if let Some(mut ctx) = root.automatic_of {
                // SAFETY: what a context frees is not used after it.
                unsafe { ctx.as_mut() }.forget_reply(reply);
            }
        }
    }

    /// The bytes of the reply in RESP.
    pub(super) fn proto(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Owned(bytes) => bytes,
            // SAFETY: the root owns the bytes, never changes them, and owns this part, too.
            &Bytes::Part { start, len } => unsafe { std::slice::from_raw_parts(start, len) },
        }
    }

    /// The value without its attribute.
    fn value(&self) -> &[u8] {
        let bytes = self.proto();
        if bytes.first() != Some(&b'|') {
            return bytes;
        }
        attribute_len(bytes).map_or(b"".as_slice(), |len| &bytes[len..])
    }

    /// The first line without its type and its end, and what is behind it.
    fn line(&self) -> (&[u8], &[u8]) {
        let value = self.value();
        let end = value.windows(2).position(|pair| pair == b"\r\n").unwrap_or(value.len());
        (value.get(1..end).unwrap_or_default(), value.get(end + 2..).unwrap_or_default())
    }

    /// One of `REDISMODULE_REPLY_*`.
    pub(super) fn kind(&self) -> c_int {
        let (line, _) = self.line();
        match self.value().first() {
            Some(b'+') => REDISMODULE_REPLY_STRING,
            Some(b'$' | b'*') if line == b"-1" => REDISMODULE_REPLY_NULL,
            Some(b'$') => REDISMODULE_REPLY_STRING,
            Some(b'-') => REDISMODULE_REPLY_ERROR,
            Some(b':') => REDISMODULE_REPLY_INTEGER,
            Some(b'*' | b'>') => REDISMODULE_REPLY_ARRAY,
            Some(b'_') => REDISMODULE_REPLY_NULL,
            Some(b'%') => REDISMODULE_REPLY_MAP,
            Some(b'~') => REDISMODULE_REPLY_SET,
            Some(b'#') => REDISMODULE_REPLY_BOOL,
            Some(b',') => REDISMODULE_REPLY_DOUBLE,
            Some(b'(') => REDISMODULE_REPLY_BIG_NUMBER,
            Some(b'=') => REDISMODULE_REPLY_VERBATIM_STRING,
            _ => REDISMODULE_REPLY_UNKNOWN,
        }
    }

    /// Whether RESP2 has not all of its types.
    pub(super) fn is_resp3(&self) -> bool {
        match self.proto().first() {
            Some(b'_' | b'%' | b'~' | b'#' | b',' | b'(' | b'=' | b'|' | b'>') => true,
            Some(b'*') => self.parts().elements.iter().any(|element| element.is_resp3()),
            _ => false,
        }
    }

    /// The bytes of a string, a status or an error; of a verbatim string with its format.
    pub(super) fn string(&self) -> Option<&[u8]> {
        let (line, rest) = self.line();
        match self.value().first()? {
            b'+' | b'-' | b'(' => Some(line),
            b'$' | b'=' => {
                let len: usize = std::str::from_utf8(line).ok()?.parse().ok()?;
                rest.get(..len)
            }
            _ => None,
        }
    }

    /// The text of a string, a status, an error or an integer.
    pub(super) fn text(&self) -> Option<Vec<u8>> {
        match self.kind() {
            REDISMODULE_REPLY_INTEGER => Some(self.line().0.to_vec()),
            REDISMODULE_REPLY_STRING | REDISMODULE_REPLY_ERROR => self.string().map(<[u8]>::to_vec),
            _ => None,
        }
    }

    pub(super) fn integer(&self) -> Option<i64> {
        (self.kind() == REDISMODULE_REPLY_INTEGER).then(|| parse_i64(self.line().0)).flatten()
    }

    pub(super) fn double(&self) -> Option<f64> {
        (self.kind() == REDISMODULE_REPLY_DOUBLE).then(|| parse_f64(self.line().0)).flatten()
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        (self.kind() == REDISMODULE_REPLY_BOOL).then(|| self.line().0 == b"t")
    }

    /// How many elements it has, of a map how many pairs; of a string its bytes.
    pub(super) fn len(&self) -> usize {
        match self.kind() {
            REDISMODULE_REPLY_ARRAY | REDISMODULE_REPLY_SET => self.parts().elements.len(),
            REDISMODULE_REPLY_MAP => self.parts().elements.len() / 2,
            REDISMODULE_REPLY_STRING | REDISMODULE_REPLY_ERROR => self.string().map_or(0, <[u8]>::len),
            _ => 0,
        }
    }

    /// Element `at`, if this is an aggregate of this kind.
    pub(super) fn element(&self, kind: c_int, at: usize) -> Option<&CallReply> {
        if self.kind() != kind {
            return None;
        }
        self.parts().elements.get(at).map(|element| &**element)
    }

    /// The attribute before the value: a map.
    pub(super) fn attribute(&self) -> Option<&CallReply> {
        self.parts().attribute.as_deref()
    }

    /// Element `at` of an attribute, its names and values in turn.
    pub(super) fn attribute_element(&self, at: usize) -> Option<&CallReply> {
        self.parts().elements.get(at).map(|element| &**element)
    }

    fn parts(&self) -> &Parts {
        self.parts.get_or_init(|| {
            let bytes = self.proto();
            let mut parts = Parts::default();
            if bytes.first() == Some(&b'|') {
                if let Some(len) = attribute_len(bytes) {
                    let is_only_attribute = len == bytes.len();
                    if is_only_attribute {
                        parts.elements = elements(bytes);
                        return parts;
                    }
                    parts.attribute = Some(CallReply::part(&bytes[..len]));
                    parts.elements = elements(&bytes[len..]);
                }
                return parts;
            }
            parts.elements = elements(bytes);
            parts
        })
    }
}

/// How many bytes the attribute takes that `bytes` begin with.
fn attribute_len(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let pairs: usize = std::str::from_utf8(&bytes[1..end]).ok()?.parse().ok()?;
    let mut at = end + 2;
    for _ in 0..2 * pairs {
        at += value_len(&bytes[at..])?;
    }
    Some(at)
}

/// How many bytes a value takes with its attribute.
fn value_len(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&b'|') {
        let len = attribute_len(bytes)?;
        return Some(len + value_len(&bytes[len..])?);
    }
    skip_reply(bytes)
}

/// The elements of an aggregate.
#[allow(clippy::vec_box, reason = "the module has pointers to them")]
fn elements(bytes: &[u8]) -> Vec<Box<CallReply>> {
    let mut found = Vec::new();
    if !matches!(bytes.first(), Some(b'*' | b'~' | b'>' | b'%' | b'|')) {
        return found;
    }
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return found };
    let count: i64 = std::str::from_utf8(&bytes[1..end]).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let is_of_pairs = matches!(bytes.first(), Some(b'%' | b'|'));
    let count = if is_of_pairs { 2 * count } else { count };
    let mut at = end + 2;
    for _ in 0..count {
        let Some(len) = value_len(&bytes[at..]) else { break };
        found.push(CallReply::part(&bytes[at..at + len]));
        at += len;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> CallReply {
        CallReply::new(text.replace('|', "\r\n").into_bytes())
    }

    #[test]
    fn each_type_is_known_and_read() {
        assert_eq!(reply(":12|").integer(), Some(12));
        assert_eq!(reply("$3|abc|").string(), Some(b"abc".as_slice()));
        assert_eq!(reply("$-1|").kind(), REDISMODULE_REPLY_NULL);
        assert_eq!(reply("*-1|").kind(), REDISMODULE_REPLY_NULL);
        assert_eq!(reply("-ERR x|").text(), Some(b"ERR x".to_vec()));
        assert_eq!(reply(",2.5|").double(), Some(2.5));
        assert_eq!(reply("#t|").boolean(), Some(true));
    }

    #[test]
    fn aggregates_have_their_elements_at_any_depth() {
        let list = reply("*2|*2|:1|:2|$1|x|");
        assert_eq!((list.kind(), list.len()), (REDISMODULE_REPLY_ARRAY, 2));
        let inner = list.element(REDISMODULE_REPLY_ARRAY, 0).expect("there are two");
        assert_eq!(inner.element(REDISMODULE_REPLY_ARRAY, 1).and_then(CallReply::integer), Some(2));
        assert!(list.element(REDISMODULE_REPLY_ARRAY, 2).is_none());
        assert!(!list.is_resp3());

        let map = reply("%1|+a|%0|");
        assert_eq!((map.kind(), map.len()), (REDISMODULE_REPLY_MAP, 1));
        assert!(map.is_resp3());
    }
}
