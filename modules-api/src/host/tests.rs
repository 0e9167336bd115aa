//! The C entry points hand over what their callers gave.

use super::*;
use std::ffi::CStr;
use std::sync::{LazyLock, Mutex};

/// What the targets were called with.
static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn record(call: String) {
    CALLS.lock().expect("no test panics with the lock").push(call);
}

/// # Safety
/// `pointer` is a string of C.
unsafe fn text(pointer: *const c_void) -> String {
    // SAFETY: as promised.
    unsafe { CStr::from_ptr(pointer.cast()) }.to_string_lossy().into_owned()
}

/// Takes arguments as the letters of a format say, as a server's `Call` does.
unsafe extern "C" fn call(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    format: *const c_char,
    arguments: *mut Arguments,
) -> *mut RedisModuleCallReply {
    // SAFETY: the test calls with strings, and arguments as its format says.
    unsafe {
        let arguments = &mut *arguments;
        let mut taken = vec![text(name.cast())];
        for letter in CStr::from_ptr(format).to_bytes() {
            match letter {
                b'c' => taken.push(text(arguments.pointer())),
                b'b' => {
                    let bytes = arguments.pointer().cast::<u8>();
                    let len = arguments.size();
                    taken.push(String::from_utf8_lossy(std::slice::from_raw_parts(bytes, len)).into_owned());
                }
                b'l' => taken.push(arguments.long_long().to_string()),
                b'v' => {
                    let strings = arguments.pointer().cast::<*const c_void>();
                    let count = arguments.size();
                    let strings = std::slice::from_raw_parts(strings, count);
                    taken.extend(strings.iter().map(|string| text(*string)));
                }
                flag => taken.push(char::from(*flag).to_string()),
            }
        }
        record(taken.join(" "));
    }
    ctx.cast()
}

unsafe extern "C" fn replicate(
    ctx: *mut RedisModuleCtx,
    name: *const c_char,
    format: *const c_char,
    arguments: *mut Arguments,
) -> c_int {
    // SAFETY: as for `call`.
    unsafe { call(ctx, name, format, arguments) };
    REDISMODULE_OK
}

unsafe extern "C" fn emit_aof(
    io: *mut RedisModuleIO,
    name: *const c_char,
    format: *const c_char,
    arguments: *mut Arguments,
) {
    // SAFETY: as for `call`.
    unsafe { call(io.cast(), name, format, arguments) };
}

unsafe extern "C" fn create_string_printf(
    ctx: *mut RedisModuleCtx,
    format: *const c_char,
    arguments: *mut Arguments,
) -> *mut RedisModuleString {
    // SAFETY: the test's arguments are what its format asks for.
    let text = unsafe { (*arguments).format(format) };
    record(String::from_utf8_lossy(&text).into_owned());
    ctx.cast()
}

unsafe extern "C" fn reply_with_error_format(
    ctx: *mut RedisModuleCtx,
    format: *const c_char,
    arguments: *mut Arguments,
) -> c_int {
    // SAFETY: the test's arguments are what its format asks for.
    unsafe { create_string_printf(ctx, format, arguments) };
    REDISMODULE_OK
}

unsafe extern "C" fn log(
    ctx: *mut RedisModuleCtx,
    level: *const c_char,
    format: *const c_char,
    arguments: *mut Arguments,
) {
    // SAFETY: the test's arguments are what its format asks for.
    unsafe {
        record(text(level.cast()));
        create_string_printf(ctx, format, arguments);
    }
}

unsafe extern "C" fn log_io_error(
    io: *mut RedisModuleIO,
    level: *const c_char,
    format: *const c_char,
    arguments: *mut Arguments,
) {
    // SAFETY: as for `log`.
    unsafe { log(io.cast(), level, format, arguments) };
}

unsafe extern "C" fn hash_set(_key: *mut RedisModuleKey, flags: c_int, arguments: *mut Arguments) -> c_int {
    let mut taken = vec![flags.to_string()];
    // SAFETY: the test gives strings of C, and NULL behind the last.
    unsafe {
        loop {
            let field = (*arguments).pointer();
            if field.is_null() {
                break;
            }
            taken.push(text(field));
        }
    }
    record(taken.join(" "));
    1
}

unsafe extern "C" fn create_string_from_long_double(
    ctx: *mut RedisModuleCtx,
    value: *const LongDoubleBytes,
    human: c_int,
) -> *mut RedisModuleString {
    let style = if human == 0 { LongDoubleStyle::General } else { LongDoubleStyle::Fixed };
    // SAFETY: C gives the address of the number.
    record(String::from_utf8_lossy(&unsafe { *value }.format(style)).into_owned());
    ctx.cast()
}

unsafe extern "C" fn reply_with_long_double(
    ctx: *mut RedisModuleCtx,
    value: *const LongDoubleBytes,
) -> c_int {
    // SAFETY: as above.
    unsafe { create_string_from_long_double(ctx, value, 0) };
    REDISMODULE_OK
}

unsafe extern "C" fn save_long_double(io: *mut RedisModuleIO, value: *const LongDoubleBytes) {
    // SAFETY: as above.
    unsafe { create_string_from_long_double(io.cast(), value, 0) };
}

unsafe extern "C" fn load_long_double(_io: *mut RedisModuleIO, value: *mut LongDoubleBytes) {
    // SAFETY: C gives a place for the number.
    unsafe { *value = LongDoubleBytes::parse(b"0.1").expect("a number") };
}

/// The calls that `run` leads to. One test at a time, for the targets are the process' own.
fn calls_of(run: impl FnOnce()) -> Vec<String> {
    static TURN: LazyLock<Mutex<()>> = LazyLock::new(|| {
        let targets = Targets {
            call,
            replicate,
            emit_aof,
            create_string_printf,
            reply_with_error_format,
            log,
            log_io_error,
            hash_set,
            hash_get: hash_set,
            create_string_from_long_double,
            reply_with_long_double,
            save_long_double,
            load_long_double,
        };
        // SAFETY: every test waits here before it calls anything.
        unsafe { set_targets(&targets) };
        Mutex::new(())
    });
    let _turn = TURN.lock().expect("no test panics here");
    run();
    std::mem::take(&mut *CALLS.lock().expect("no test panics with the lock"))
}

#[test]
fn a_call_hands_over_its_arguments_one_by_one() {
    let strings = [c"v1".as_ptr(), c"v2".as_ptr()];
    let ctx = 8 as *mut RedisModuleCtx;

    let calls = calls_of(|| {
        // SAFETY: the arguments are what the format says.
        unsafe {
            let (name, bytes) = (c"SET".as_ptr(), b"bytes!".as_ptr());
            let reply = entry::Call(
                ctx,
                name,
                c"cblvlllllc!3".as_ptr(),
                c"key".as_ptr(),
                bytes,
                5_usize,
                i64::MIN,
                strings.as_ptr(),
                2_usize,
                1_i64,
                2_i64,
                3_i64,
                4_i64,
                -5_i64,
                c"end".as_ptr(),
            );
            assert_eq!(reply.addr(), ctx.addr());
            assert_eq!(entry::Replicate(ctx, name, c"l".as_ptr(), 7_i64), REDISMODULE_OK);
            entry::EmitAOF(std::ptr::null_mut(), name, c"c".as_ptr(), c"x".as_ptr());
        }
    });

    assert_eq!(calls, ["SET key bytes -9223372036854775808 v1 v2 1 2 3 4 -5 end ! 3", "SET 7", "SET x"]);
}

#[test]
fn formats_are_those_of_printf_whatever_their_length() {
    let long = "x".repeat(1000);
    let calls = calls_of(|| {
        // SAFETY: the arguments are what the formats ask for.
        unsafe {
            let ctx = std::ptr::null_mut();
            entry::Log(
                ctx,
                c"notice".as_ptr(),
                c"%s %.2f %lld %d%%".as_ptr(),
                c"a".as_ptr(),
                1.255_f64,
                7_i64,
                -1,
            );
            entry::LogIOError(std::ptr::null_mut(), c"warning".as_ptr(), c"plain".as_ptr());
            entry::CreateStringPrintf(ctx, c"%0*d".as_ptr(), 1000, 0);
            entry::ReplyWithErrorFormat(ctx, c"ERR %zu".as_ptr(), usize::MAX);
        }
    });

    let zeros = long.replace('x', "0");
    assert_eq!(calls, ["notice", "a 1.25 7 -1%", "warning", "plain", &zeros, "ERR 18446744073709551615"]);
}

#[test]
fn fields_of_hashes_end_with_null() {
    let calls = calls_of(|| {
        // SAFETY: strings of C, and NULL behind the last.
        unsafe {
            let (key, null) = (std::ptr::null_mut(), std::ptr::null::<c_char>());
            assert_eq!(entry::HashSet(key, 4, c"f".as_ptr(), c"v".as_ptr(), null), 1);
            assert_eq!(entry::HashGet(key, 0, null), 1);
        }
    });

    assert_eq!(calls, ["4 f v", "0"]);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn long_doubles_go_by_value() {
    /// A `long double` is passed in 16 bytes of the stack, aligned to 16. So is the beginning of this.
    #[repr(C, align(16))]
    struct OnStack([u8; 32]);
    type Create = unsafe extern "C" fn(*mut RedisModuleCtx, OnStack, c_int) -> *mut RedisModuleString;
    type ReplyWith = unsafe extern "C" fn(*mut RedisModuleCtx, OnStack) -> c_int;
    let one_third = || {
        let third = LongDoubleBytes::parse(b"0.33333333333333333333").expect("a number");
        OnStack(std::array::from_fn(|at| if at < 16 { third.0[at] } else { 0 }))
    };

    let calls = calls_of(|| {
        let ctx = 8 as *mut RedisModuleCtx;
        // SAFETY: these are the signatures in C.
        unsafe {
            let create = std::mem::transmute::<*const c_void, Create>(served(
                c"RedisModule_CreateStringFromLongDouble",
            ));
            assert_eq!(create(ctx, one_third(), 1).addr(), ctx.addr());
            let reply_with =
                std::mem::transmute::<*const c_void, ReplyWith>(served(c"RedisModule_ReplyWithLongDouble"));
            assert_eq!(reply_with(ctx, one_third()), REDISMODULE_OK);
            let save = std::mem::transmute::<*const c_void, ReplyWith>(served(c"RedisModule_SaveLongDouble"));
            save(ctx, one_third());
        }
    });

    assert_eq!(calls, ["0.33333333333333333"; 3]);
}

fn served(name: &CStr) -> *const c_void {
    let served = SERVED.iter().find(|served| served.name == name).expect("it is served");
    // The compiler is not to see which function it is: it knows a signature of it that is not the one in C.
    std::hint::black_box(served.pointer)
}

#[test]
fn long_doubles_keep_what_a_double_would_lose() {
    let third = LongDoubleBytes::parse(b"0.33333333333333333333").expect("a number");

    assert_eq!(third.format(LongDoubleStyle::General), b"0.33333333333333333");
    assert_eq!(third.format(LongDoubleStyle::Fixed), b"0.33333333333333333");
    let exact = third.format(LongDoubleStyle::Hex);
    assert_eq!(LongDoubleBytes::parse(&exact), Some(third), "{}", String::from_utf8_lossy(&exact));
    let greatest = LongDoubleBytes::parse(b"1e4932").expect("a number");
    assert_eq!(greatest.format(LongDoubleStyle::Fixed).len(), 4933 + 18);

    for text in ["", "x", "1x", "1 "] {
        assert_eq!(LongDoubleBytes::parse(text.as_bytes()), None, "{text:?}");
    }
}
