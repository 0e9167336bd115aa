//! A request's arguments: where they lie, over the bytes they lie in.
//!
//! Arguments are ranges and not slices because they are found while the buffer is still owned by the connection, and
//! because eight bytes an argument let a whole pipeline's arguments stand in one reused vector.
use std::fmt;
use std::ops::Index;
use std::slice::SliceIndex;

/// One argument of a request: where it lies in the buffer the parser was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgRange {
    pub start: u32,
    pub len: u32,
}

/// What C shows of a string: what stands before its first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}

/// A request's arguments over the bytes they lie in.
#[derive(Clone, Copy)]
pub struct Argv<'a> {
    bytes: &'a [u8],
    ranges: &'a [ArgRange],
}

impl<'a> Argv<'a> {
    /// Every one of `ranges` lies in `bytes`: one that does not panics when it is read.
    #[inline]
    pub fn new(bytes: &'a [u8], ranges: &'a [ArgRange]) -> Self {
        Self { bytes, ranges }
    }

    /// The number of arguments, the command's name included.
    #[inline]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    #[inline]
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        self.ranges.get(i).map(|&range| slice_of(self.bytes, range))
    }

    /// Argument `i`, for as long as the bytes live. Panics when there are fewer: arity is checked before.
    #[inline]
    pub fn arg(&self, i: usize) -> &'a [u8] {
        slice_of(self.bytes, self.ranges[i])
    }

    #[inline]
    pub fn iter(&self) -> Iter<'a> {
        Iter { bytes: self.bytes, ranges: self.ranges.iter() }
    }

    /// The arguments of an index range (`1..`, `2..5`) as a vector of their own. Panics out of bounds.
    #[inline]
    pub fn slice(&self, range: impl SliceIndex<[ArgRange], Output = [ArgRange]>) -> Argv<'a> {
        Argv { bytes: self.bytes, ranges: &self.ranges[range] }
    }

    /// Where the arguments lie in `bytes()`.
    #[inline]
    pub fn ranges(&self) -> &'a [ArgRange] {
        self.ranges
    }

    /// The bytes the arguments lie in; they may hold more than these arguments.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The sum of the arguments' lengths in bytes.
    pub fn total_len_bytes(&self) -> usize {
        self.ranges.iter().map(|range| range.len as usize).sum()
    }
}

#[inline]
fn slice_of(bytes: &[u8], range: ArgRange) -> &[u8] {
    let start = range.start as usize;
    &bytes[start..start + range.len as usize]
}

impl Index<usize> for Argv<'_> {
    type Output = [u8];

    #[inline]
    fn index(&self, i: usize) -> &[u8] {
        self.arg(i)
    }
}

impl<'a> IntoIterator for Argv<'a> {
    type Item = &'a [u8];
    type IntoIter = Iter<'a>;

    #[inline]
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Argv<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|arg| arg.escape_ascii().to_string())).finish()
    }
}

/// The arguments in order.
#[derive(Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    ranges: std::slice::Iter<'a, ArgRange>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.ranges.next().map(|&range| slice_of(self.bytes, range))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.ranges.size_hint()
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.ranges.next_back().map(|&range| slice_of(self.bytes, range))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// A request that owns its bytes: nothing but the arguments, one behind the other.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OwnedArgv {
    bytes: Vec<u8>,
    ranges: Vec<ArgRange>,
}

impl OwnedArgv {
    pub fn new() -> Self {
        Self::default()
    }

    /// Room for `arg_count` arguments of `total_len_bytes` together.
    pub fn with_capacity(arg_count: usize, total_len_bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(total_len_bytes), ranges: Vec::with_capacity(arg_count) }
    }

    /// A copy of `argv`'s arguments, without what else its buffer holds.
    pub fn from_argv(argv: Argv<'_>) -> Self {
        let mut owned = Self::with_capacity(argv.len(), argv.total_len_bytes());
        for arg in argv {
            owned.push_arg(arg);
        }
        owned
    }

    pub fn from_slices<T: AsRef<[u8]>>(args: &[T]) -> Self {
        let total_len_bytes = args.iter().map(|arg| arg.as_ref().len()).sum();
        let mut owned = Self::with_capacity(args.len(), total_len_bytes);
        for arg in args {
            owned.push_arg(arg.as_ref());
        }
        owned
    }

    /// Appends an argument. All arguments together stay below 4 GiB, as every request does
    /// ([`REQUEST_LEN_MAX`](super::request::REQUEST_LEN_MAX)).
    pub fn push_arg(&mut self, arg: &[u8]) {
        let start = u32::try_from(self.bytes.len()).expect("a request is shorter than 4 GiB");
        let len = u32::try_from(arg.len()).expect("an argument is shorter than 4 GiB");
        self.bytes.extend_from_slice(arg);
        self.ranges.push(ArgRange { start, len });
    }

    /// Takes over other arguments, in the memory of those that it had. They stay below 4 GiB, too.
    pub fn refill<'a>(&mut self, args: impl Iterator<Item = &'a [u8]> + Clone) {
        let total_len_bytes: usize = args.clone().map(<[u8]>::len).sum();
        assert!(u32::try_from(total_len_bytes).is_ok(), "a request is shorter than 4 GiB");
        self.clear();
        self.bytes.reserve(total_len_bytes);
        self.ranges.reserve(args.clone().count());
        for arg in args {
            self.ranges.push(ArgRange { start: self.bytes.len() as u32, len: arg.len() as u32 });
            self.bytes.extend_from_slice(arg);
        }
    }

    /// The same with those of a request.
    pub fn refill_from(&mut self, args: Argv<'_>) {
        self.clear();
        let mut end = 0;
        self.ranges.extend(args.ranges.iter().map(|range| {
            let start = end;
            end += range.len;
            ArgRange { start, len: range.len }
        }));
        self.bytes.reserve(end as usize);
        args.iter().for_each(|arg| self.bytes.extend_from_slice(arg));
    }

    #[inline]
    pub fn as_argv(&self) -> Argv<'_> {
        Argv::new(&self.bytes, &self.ranges)
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes the arguments out and keeps the room they took.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ranges.clear();
    }

    /// The heap bytes behind it, for memory accounting.
    pub fn heap_len_bytes(&self) -> usize {
        self.bytes.capacity() + self.ranges.capacity() * size_of::<ArgRange>()
    }
}

impl fmt::Debug for OwnedArgv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_argv().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_place() {
        let bytes = b"..SET.key..";
        let ranges =
            [ArgRange { start: 2, len: 3 }, ArgRange { start: 6, len: 3 }, ArgRange { start: 9, len: 0 }];
        let argv = Argv::new(bytes, &ranges);

        assert_eq!(argv.len(), 3);
        assert_eq!(&argv[0], b"SET");
        assert_eq!(argv.get(1), Some(&b"key"[..]));
        assert_eq!(argv.get(2), Some(&b""[..]));
        assert_eq!(argv.get(3), None);
        assert_eq!(argv.slice(1..).iter().collect::<Vec<_>>(), [&b"key"[..], b""]);
        assert_eq!(argv.iter().next_back(), Some(&b""[..]));
        assert_eq!(argv.total_len_bytes(), 6);
        // The borrow is of the bytes: it outlives the vector of arguments.
        let key = { argv.slice(1..).arg(0) };
        assert_eq!(key, b"key");
    }

    #[test]
    fn a_copy_holds_the_arguments_and_nothing_else() {
        let bytes = b"*2\r\n$3\r\nGET\r\n$2\r\n\x00\xff\r\n";
        let ranges = [ArgRange { start: 8, len: 3 }, ArgRange { start: 17, len: 2 }];
        let owned = OwnedArgv::from_argv(Argv::new(bytes, &ranges));

        assert_eq!(owned.as_argv().bytes(), b"GET\x00\xff");
        assert_eq!(owned, OwnedArgv::from_slices(&[&b"GET"[..], b"\x00\xff"]));
        assert_eq!(format!("{owned:?}"), r#"["GET", "\\x00\\xff"]"#);
    }

    #[test]
    fn clearing_keeps_the_room() {
        let mut owned = OwnedArgv::from_slices(&["MSET", "a", "1"]);
        let before = owned.heap_len_bytes();

        owned.clear();

        assert!(owned.is_empty());
        assert_eq!(owned.heap_len_bytes(), before);
    }
}
