//! The arguments of a command that a script calls: one behind the other, as a server has those of its clients.

/// Where an argument lies in the bytes of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub start: u32,
    pub len: u32,
}

/// The arguments of a command, its name first.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    pub bytes: &'a [u8],
    /// All of them lie in `bytes`.
    pub places: &'a [Place],
}

impl<'a> Args<'a> {
    pub fn iter(self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        self.places.iter().map(move |place| &self.bytes[place.start as usize..][..place.len as usize])
    }
}

/// More memory than this is not kept for the next arguments.
const KEPT_BYTES: usize = 64 << 10;

/// Arguments that are put together, in memory that is used again.
#[derive(Default)]
pub(crate) struct ArgBuffer {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

impl ArgBuffer {
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// Adds the argument that `append` appends. Returns whether there is room: all of them take less than 4 GiB.
    #[inline(always)]
    #[must_use]
    pub(crate) fn add(&mut self, append: impl FnOnce(&mut Vec<u8>)) -> bool {
        let start = self.bytes.len();
        append(&mut self.bytes);
        self.places.push(Place { start: start as u32, len: (self.bytes.len() - start) as u32 });
        u32::try_from(self.bytes.len()).is_ok()
    }

    #[inline]
    pub(crate) fn as_args(&self) -> Args<'_> {
        Args { bytes: &self.bytes, places: &self.places }
    }
}
