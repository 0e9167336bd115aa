//! The process' title, as `ps` shows it: the kernel reads it from where the arguments and the environment lie, so it is
//! changed by writing there.
//!
//! The area is as long as both together; the environment is moved out of it first. If the last byte of the arguments'
//! part is not zero, the kernel takes all up to the first zero for the title, so the title may be longer than the
//! arguments were.

use std::fs;
use std::ptr;
use std::sync::Mutex;

/// Where the title may be written.
struct Area {
    start: usize,
    len: usize,
}

/// None: not prepared, or there is no such area.
static AREA: Mutex<Option<Area>> = Mutex::new(None);

/// Makes the memory of the arguments and of the environment free for titles. From here on `std::env::args` is nonsense.
/// For the main thread, before others are started.
pub fn prepare() {
    let Some(area) = find_area() else { return };
    let environment: Vec<_> = std::env::vars_os().collect();
    for (name, value) in environment {
        // SAFETY: there is one thread. Setting a variable, to its own value too, puts it into memory of its own.
        unsafe { std::env::set_var(name, value) };
    }
    *AREA.lock().expect("no holder of the title's area panics") = Some(area);
}

/// Reads the area's bounds from /proc/self/stat: the arguments, and the environment if it follows them.
fn find_area() -> Option<Area> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may hold anything; the third follows it.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok().filter(|&address| address != 0);
    let (arg_start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    let end = if env_start == arg_end { env_end } else { arg_end };
    (arg_start < end).then_some(Area { start: arg_start, len: end - arg_start })
}

/// Shows a title, as much of it as there is room for. Without effect before [`prepare`].
pub fn set(title: &[u8]) {
    let area = AREA.lock().expect("no holder of the title's area panics");
    let Some(Area { start, len }) = *area else { return };
    let shown = &title[..title.len().min(len - 1)];
    let to: *mut u8 = ptr::with_exposed_provenance_mut(start);
    // SAFETY: `len` bytes from `start` are the arguments and the environment on the main thread's stack, which lives as
    // long as the process. Nothing in Rust reads them any more: see `prepare`. The lock keeps other titles away.
    unsafe {
        ptr::copy_nonoverlapping(shown.as_ptr(), to, shown.len());
        ptr::write_bytes(to.add(shown.len()), 0, len - shown.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_holds_the_arguments() {
        let area = find_area().unwrap();
        let args_len: usize = std::env::args_os().map(|arg| arg.len() + 1).sum();
        assert!(area.len >= args_len, "{} for {args_len}", area.len);
    }
}
