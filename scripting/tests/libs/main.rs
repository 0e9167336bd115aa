//! The libraries give what Redis 7.0.15 gives: random calls with the results that a server had for them. The table is made, and
//! many more such calls are compared, by `examples/libs_differ`.

mod vm;

use vm::Vm;

/// Two lines a case: a chunk, and what `runner.lua` told of it on the server; escaped as [`u8::escape_ascii`] does it.
const CASES: &str = include_str!("cases.txt");

fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'x') => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two digits")
            }
            other => other.expect("something behind a backslash"),
        });
    }
    bytes
}

#[test]
fn random_calls_give_what_the_server_gave() {
    let lines: Vec<&str> = CASES.lines().collect();
    assert!(lines.len() >= 800, "the table has {} lines", lines.len());
    // Those of one state, in their order: some change settings of `cjson`.
    let mut vm = Vm::new(1 << 28);
    for pair in lines.chunks_exact(2) {
        let told = vm.run(&unescape(pair[0]));
        assert_eq!(
            told.escape_ascii().to_string(),
            unescape(pair[1]).escape_ascii().to_string(),
            "{}",
            pair[0]
        );
    }
}

#[test]
fn libraries_are_listed_in_redis_order() {
    let lists = [
        ("bit", "band rshift bor bnot bswap bxor tobit ror lshift tohex rol arshift "),
        ("struct", "pack size unpack "),
        ("cmsgpack", "_DESCRIPTION pack _NAME unpack _COPYRIGHT _VERSION unpack_one unpack_limit "),
        (
            "cjson",
            "_NAME encode decode_max_depth _VERSION decode_invalid_numbers encode_keep_buffer null encode_number_precision \
             new encode_max_depth encode_invalid_numbers decode encode_sparse_array ",
        ),
    ];
    let mut vm = Vm::new(1 << 24);
    for (library, names) in lists {
        let script =
            format!("local names='' for name in pairs({library}) do names=names..name..' ' end return names");
        assert_eq!(vm.eval(script.as_bytes(), c"@list"), Ok(names.into()), "{library}");
    }
}
