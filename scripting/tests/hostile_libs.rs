//! Scripts that mean harm to the libraries: known holes of those that Redis ships, and what else one would try.
//!
//! Each test runs in a state whose memory is limited, counted, and all given back at its end (see `Vm`'s `Drop`).

#[path = "libs/vm.rs"]
mod vm;

use vm::Vm;

const LIMIT_BYTES: usize = 64 << 20;
/// What a call may ask for at once if its input is short: more than any first buffer.
const MODEST_BYTES: usize = 64 << 10;

/// What `runner.lua` tells of a chunk, as text.
fn told(vm: &mut Vm, chunk: &str) -> String {
    vm.run(chunk.as_bytes()).escape_ascii().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

#[track_caller]
fn assert_tells(chunk: &str, expected: &str) {
    assert_eq!(told(&mut Vm::new(LIMIT_BYTES), chunk), expected, "{chunk}");
}

/// `bit.tohex` negated a count of -2^31, which stayed negative, and wrote digits far below its buffer.
#[test]
fn cve_2024_31449_tohex_of_the_least_count_writes_eight_digits() {
    for count in ["-2147483648", "2147483648", "-2^31", "2^31", "-2147483647"] {
        assert_tells(&format!("return bit.tohex(65535,{count})"), "ok \"0000FFFF\"");
    }
    assert_tells("return bit.tohex(65535,2147483647)", "ok \"0000ffff\"");
}

/// A number in a format was read into an int that overflowed, so that sizes became negative.
#[test]
fn cve_2020_14147_a_number_in_a_format_does_not_overflow() {
    for format in [
        "i4294967300",
        "c4294967295",
        "c2147483648",
        "!4294967296i",
        "i99999999999999999999",
        "I18446744073709551617",
    ] {
        for call in ["pack('{}',1)", "unpack('{}','abcdefgh')", "size('{}')"] {
            let call = call.replace("{}", format);
            assert_tells(&format!("return struct.{call}"), "error \"user_script:1: integral size overflow\"");
        }
    }
    let mut vm = Vm::new(LIMIT_BYTES);
    assert_eq!(
        told(&mut vm, "return struct.unpack('c2147483647','abc')"),
        "error \"user_script:1: bad argument #2 to 'unpack' (data string too short)\""
    );
    assert_eq!(
        told(&mut vm, "return struct.pack('c2147483647','abc')"),
        "error \"user_script:1: bad argument #3 to 'pack' (string too short)\""
    );
    assert!(vm.largest_bytes() < MODEST_BYTES, "{} bytes at once", vm.largest_bytes());
}

/// A position and a size whose sum overflowed passed the check against the length of the data.
#[test]
fn cve_2018_11219_positions_and_sizes_do_not_overflow() {
    let too_short = "error \"user_script:1: bad argument #2 to 'unpack' (data string too short)\"";
    for position in ["-1", "-2", "-2^31", "2^31", "2^32", "2^63", "-2^63", "1/0", "2^53"] {
        for format in ["i", "c1", "c2147483647", "s", "!8l", "!16i16", "x", "Bc0"] {
            assert_tells(&format!("return struct.unpack('{format}','abcdefgh',{position})"), too_short);
        }
    }
    for size in ["2^53", "2^63", "-1", "2^64-2^11", "4294967296", "9"] {
        assert_tells(&format!("return struct.unpack('dc0',struct.pack('d',{size})..'abcdefgh')"), too_short);
    }
    for position in 1..=9 {
        let rest = 8 - (position - 1);
        let told = told(
            &mut Vm::new(LIMIT_BYTES),
            &format!("return struct.unpack('c{rest}','abcdefgh',{position})"),
        );
        assert_eq!(told.starts_with("ok"), rest > 0, "{told}");
    }
}

/// Nested tables and many values were pushed onto Lua's stack without asking for room.
#[test]
fn cve_2018_11218_the_stack_is_not_written_past() {
    let nested = "error \"user_script:1: stack overflow (in function mp_decode_to_lua_array)\"";
    let many = "error \"user_script:1: stack overflow (too many return values at once; use unpack_one or unpack_limit \
                instead.)\"";
    for (input, expected) in
        [("\\145", nested), ("\\129", many), ("\\129\\1", many), ("\\1", many), ("\\192", many)]
    {
        for count in [9_000, 100_000, 1_000_000] {
            assert_tells(&format!("return cmsgpack.unpack(string.rep('{input}',{count}))"), expected);
        }
    }
    assert_tells("return #{cmsgpack.unpack(string.rep('\\1',7990))}", "ok 7990");
    let arguments = "local t={} for i=1,NUMBER do t[i]=1 end return #cmsgpack.pack(unpack(t))";
    assert_tells(&arguments.replace("NUMBER", "3900"), "ok 3900");
    assert_tells(
        &arguments.replace("NUMBER", "7000"),
        "error \"user_script:1: bad argument #0 to 'pack' (Too many arguments for MessagePack pack.)\"",
    );
    assert_tells(
        "return #{struct.unpack(string.rep('b',9000),string.rep('x',9000))}",
        "error \"user_script:1: stack overflow (too many results)\"",
    );
}

/// A count says how much should follow; what is allocated goes by what does.
#[test]
fn a_huge_count_in_front_of_nothing_allocates_nothing() {
    let mut vm = Vm::new(LIMIT_BYTES);
    let before = vm.largest_bytes();
    for tag in ["\\219", "\\221", "\\223"] {
        for count in ["\\255\\255\\255\\255", "\\127\\255\\255\\255", "\\128\\0\\0\\0"] {
            let told = told(&mut vm, &format!("return cmsgpack.unpack('{tag}{count}\\1')"));
            assert_eq!(told, "error \"user_script:1: Missing bytes in input.\"");
        }
    }
    assert!(vm.largest_bytes() <= before.max(MODEST_BYTES), "{} bytes at once", vm.largest_bytes());
}

#[test]
fn input_cut_anywhere_is_an_error_or_a_value() {
    let mut vm = Vm::new(LIMIT_BYTES);
    let packed =
        "cmsgpack.pack({1,-1,300,-300,70000,-70000,2^40,1.5,1.1,'ab',string.rep('x',300),true,{a={b={}}}})";
    let json = r#"'{"a":[1,-2.5e10,true,null,"\\u00e9\\ud83d\\ude00\\n"],"b":{"c":{}},"d":"x"}'"#;
    let laid_out = "struct.pack('>bBhHlLiIfdsc3!8i8',1,2,3,4,5,6,7,8,1.5,2.5,'str','abc',9)";
    for (input, read) in [
        (packed, "cmsgpack.unpack(cut)"),
        (packed, "cmsgpack.unpack_one(cut,0)"),
        (json, "cjson.decode(cut)"),
        (laid_out, "struct.unpack('>bBhHlLiIfdsc3!8i8',cut)"),
    ] {
        let script = format!(
            "local whole,succeeded={input},0 \
             for len=0,#whole do local cut=string.sub(whole,1,len) \
             if pcall(function() return {read} end) then succeeded=succeeded+1 end end return succeeded"
        );
        // The whole, and for `unpack` nothing at all.
        let expected = if read.starts_with("cmsgpack") { "ok 2" } else { "ok 1" };
        assert_eq!(told(&mut vm, &script), expected, "{read}");
    }
}

#[test]
fn nesting_ends_where_luas_stack_does_however_deep_it_is_allowed() {
    let allowed = "cjson.encode_max_depth(2^31-1) cjson.decode_max_depth(2^31-1) ";
    for (script, expected) in [
        ("local t={} t[1]=t return cjson.encode(t)", "Cannot serialise, excessive nesting ("),
        ("local t={} t.a=t return cjson.encode(t)", "Cannot serialise, excessive nesting ("),
        ("return cjson.decode(string.rep('[',1000000))", "Found too many nested data structures ("),
        ("return cjson.decode(string.rep('{\"a\":',1000000))", "Found too many nested data structures ("),
    ] {
        let told = told(&mut Vm::new(LIMIT_BYTES), &format!("{allowed}{script}"));
        assert!(told.starts_with(&format!("error \"user_script:1: {expected}")), "{told}");
    }
    assert_tells(
        &format!(
            "{allowed} local s=string.rep('[',2000)..string.rep(']',2000) return cjson.encode(cjson.decode(s))==s"
        ),
        // The innermost array is empty, and an empty table is an object.
        "ok false",
    );
    assert_tells(
        "local t={} t[1]=t t.x=t return #cmsgpack.pack(t)",
        &format!("ok {}", (0..16).fold(1, |nested, _| 1 + 1 + nested + 2 + nested)),
    );
}

/// A table that holds the one before twice is small, and its text is not.
#[test]
fn a_document_that_does_not_fit_is_an_error_and_leaves_no_memory_behind() {
    let double = "local t={'xxxxxxxxxxxxxxxx'} for i=1,60 do t={t,t} end ";
    let packed_double = "local t={string.rep('x',1000)} for i=1,14 do t={t,t,t,t} end ";
    let mut vm = Vm::new(LIMIT_BYTES);
    vm.run(b"return cjson.encode({cjson.decode('\"\\\\n\"')}), cmsgpack.pack({1}), struct.pack('b',1)");
    let before = vm.used_bytes();
    for script in [
        format!("{double} return cjson.encode(t)"),
        format!("{packed_double} return cmsgpack.pack(t)"),
        "return cjson.encode({string.rep('\\1',8*1024*1024),string.rep('\\1',8*1024*1024)})".to_string(),
        "return struct.pack(string.rep('s',10),string.rep('x',20*1024*1024),string.rep('y',20*1024*1024))"
            .to_string(),
        "local s=string.rep('\\\\n',12*1024*1024) return cjson.decode('\"'..s..'\"')".to_string(),
    ] {
        assert_eq!(told(&mut vm, &script), "error \"not enough memory\"", "{script}");
        assert_eq!(told(&mut vm, "return cjson.encode({cjson.decode('\"\\\\n\"')})"), "ok \"[\"\\\\n\"]\"");
        let after = vm.used_bytes();
        assert!(after < before + MODEST_BYTES, "{before} bytes before, {after} after {script}");
    }
}

#[test]
fn a_far_index_does_not_make_a_long_array() {
    let mut vm = Vm::new(LIMIT_BYTES);
    assert_eq!(
        told(&mut vm, "return cjson.encode({[2^31-1]=1})"),
        "error \"user_script:1: Cannot serialise table: excessively sparse array\""
    );
    assert_eq!(
        told(&mut vm, "return cmsgpack.pack({[2^31-1]=1})"),
        "ok \"\\x81\\xce\\x7f\\xff\\xff\\xff\\x01\""
    );
    assert_eq!(
        told(&mut vm, "local j=cjson.new() j.encode_sparse_array(false,0) return j.encode({[2^31-1]=1})"),
        "error \"not enough memory\""
    );
}

#[test]
fn alignment_and_padding_stay_small() {
    for (format, expected) in [
        ("!1073741824bi", "\\x01\\x00\\x00\\x00\\x02\\x00\\x00\\x00"),
        ("!1bi", "\\x01\\x02\\x00\\x00\\x00"),
        ("!2bi", "\\x01\\x00\\x02\\x00\\x00\\x00"),
    ] {
        assert_tells(&format!("return struct.pack('{format}',1,2)"), &format!("ok \"{expected}\""));
    }
    for format in ["!0i", "!3i", "!2147483647i"] {
        let told = told(&mut Vm::new(LIMIT_BYTES), &format!("return struct.pack('{format}',1)"));
        assert!(told.ends_with("is not a power of 2\""), "{told}");
    }
}

/// Metamethods would run a script in the midst of a library's work.
#[test]
fn tables_are_read_and_made_without_metamethods() {
    let trap = "local function trap() error('called') end \
                local t=setmetatable({1,2,a=3},{__index=trap,__newindex=trap,__len=trap,__tostring=trap,__call=trap}) ";
    assert_tells(&format!("{trap} return #cjson.encode(t)"), "ok 19");
    assert_tells(&format!("{trap} return #cmsgpack.pack(t)"), "ok 8");
    assert_tells(
        &format!("{trap} return bit.tobit(t)"),
        "error \"user_script:1: bad argument #1 to 'tobit' (number expected, got table)\"",
    );
    assert_tells(
        &format!("{trap} return struct.pack('s',t)"),
        "error \"user_script:1: bad argument #2 to 'pack' (string expected, got table)\"",
    );
}

/// A finalizer runs while a library allocates: it must not work in the buffers of the call that it interrupts.
#[test]
fn a_finalizer_that_calls_the_libraries_does_not_disturb_the_call_that_it_interrupts() {
    let script = "
        local wrong = 0
        local function again()
            local p = newproxy(true)
            getmetatable(p).__gc = function()
                if cjson.encode({'a\\n', {1, {2}}}) ~= '[\"a\\\\n\",[1,[2]]]' then wrong = wrong + 1 end
                if cjson.decode('[\"x\\\\ty\"]')[1] ~= 'x\\ty' then wrong = wrong + 1 end
                if cmsgpack.unpack(cmsgpack.pack({{1}}))[1][1] ~= 1 then wrong = wrong + 1 end
                again()
            end
        end
        again()
        local text = '[' .. string.rep('{\"k\\\\n\":[\"v\\\\u00e9\",[[\"w\\\\t\"]]]},', 200) .. '0]'
        local expected = cjson.encode(cjson.decode(text))
        for i = 1, 50 do
            collectgarbage('setpause', 0)
            if cjson.encode(cjson.decode(text)) ~= expected then wrong = wrong + 1 end
            if #cmsgpack.pack(cmsgpack.unpack(cmsgpack.pack(cjson.decode(text)))) == 0 then wrong = wrong + 1 end
        end
        again = function() end
        return wrong";
    assert_tells(script, "ok 0");
}

#[test]
fn settings_cannot_be_set_out_of_range() {
    for call in [
        "encode_max_depth(0)",
        "encode_max_depth(-1)",
        "decode_max_depth(0)",
        "encode_number_precision(15)",
        "encode_number_precision(0)",
        "encode_number_precision(-2^31)",
        "encode_sparse_array(true,-1)",
        "encode_sparse_array(true,1,-1)",
    ] {
        let told = told(&mut Vm::new(LIMIT_BYTES), &format!("return cjson.{call}"));
        assert!(told.contains("expected integer between"), "{call}: {told}");
    }
}
