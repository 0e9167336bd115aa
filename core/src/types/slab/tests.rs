use super::*;

#[test]
fn a_freed_cell_is_the_next_of_its_class() {
    let mut slab = Slab::new();
    let first = slab.allocate(30);
    let second = slab.allocate(32);
    assert_ne!(first, second);
    // SAFETY: the cell came from this slab with a size of the same class.
    unsafe { slab.free(first, 32) };
    assert_eq!(slab.allocate(25), first);
    assert_eq!(slab.used_bytes(), 64);
}
