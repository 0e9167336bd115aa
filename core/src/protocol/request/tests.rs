//! Requests in one piece and in any pieces, and Redis' error for what is none.

use super::*;
use crate::protocol::Argv;
use crate::testing::{Rng, with_seed};

/// A stream's requests in order, and the error it ended in, if it did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    requests: Vec<OwnedArgv>,
    error: Option<ProtocolError>,
    /// Bytes at the end that are no whole request yet.
    left_len: usize,
}

/// What a connection makes of `stream` when it arrives cut before each offset of `cuts`, which are in order.
fn outcome(stream: &[u8], cuts: &[usize], limits: &Limits) -> Outcome {
    let mut parser = RequestParser::default();
    let mut args = Vec::new();
    let mut outcome = Outcome::default();
    let mut start = 0;
    'arrivals: for &end in cuts.iter().chain([&stream.len()]) {
        loop {
            let buf = &stream[start..end];
            args.clear();
            args.push(ArgRange { start: 1, len: 2 }); // Another request's: parse appends.
            match parser.parse(buf, limits, &mut args) {
                Parsed::Request { consumed } => {
                    assert!(args.len() > 1, "a request has an argument");
                    let argv = Argv::new(&buf[..consumed], &args[1..]);
                    outcome.requests.push(OwnedArgv::from_argv(argv));
                    start += consumed;
                }
                Parsed::Inline { consumed, argv } => {
                    assert_eq!(args.len(), 1);
                    outcome.requests.push(argv);
                    start += consumed;
                }
                Parsed::Empty { consumed } => {
                    assert_eq!(args.len(), 1);
                    start += consumed;
                }
                Parsed::Incomplete { missing } => {
                    assert_eq!(args.len(), 1);
                    assert_ne!(missing, Some(0));
                    continue 'arrivals;
                }
                Parsed::Error(error) => {
                    assert_eq!(args.len(), 1);
                    outcome.error = Some(error);
                    break 'arrivals;
                }
            }
        }
    }
    outcome.left_len = stream.len() - start;
    outcome
}

fn whole(stream: &[u8]) -> Outcome {
    outcome(stream, &[], &Limits::default())
}

fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend(*arg);
        bytes.extend(b"\r\n");
    }
    bytes
}

fn requests(stream: &[u8]) -> Vec<OwnedArgv> {
    let outcome = whole(stream);
    assert_eq!((outcome.error, outcome.left_len), (None, 0), "{}", stream.escape_ascii());
    outcome.requests
}

/// The reply Redis 7.0.15 gives before it closes the connection.
fn refusal(stream: &[u8], limits: &Limits) -> String {
    let outcome = outcome(stream, &[], limits);
    assert_eq!(outcome.requests, []);
    match outcome.error {
        Some(error) => format!("-{}", error.text().escape_ascii()),
        None => String::new(),
    }
}

#[test]
fn a_request_is_found_in_place() {
    let stream = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\n\x00\r\n456789abc\r\n*1\r\n";
    let mut args = Vec::new();

    let parsed = RequestParser::default().parse(stream, &Limits::default(), &mut args);

    assert_eq!(parsed, Parsed::Request { consumed: stream.len() - 4 });
    assert_eq!(args, [(8, 3), (17, 1), (25, 12)].map(|(start, len)| ArgRange { start, len }));
}

#[test]
fn arguments_may_be_empty_and_hold_line_ends() {
    let args: [&[u8]; 4] = [b"ECHO", b"", b"\r\n", b"*1\r\n$4\r\nPING\r\n"];
    assert_eq!(requests(&encode(&args)), [OwnedArgv::from_slices(&args)]);
}

#[test]
fn inline_requests_are_lines_of_words() {
    assert_eq!(requests(b"PING\r\n"), [OwnedArgv::from_slices(&["PING"])]);
    assert_eq!(requests(b" SET k  v\n"), [OwnedArgv::from_slices(&["SET", "k", "v"])]);
    assert_eq!(requests(b"ECHO \"\\x41\\n\xff\"\r\n"), [OwnedArgv::from_slices(&[&b"ECHO"[..], b"A\n\xff"])]);
    assert_eq!(requests(b"'' a\n"), [OwnedArgv::from_slices(&["", "a"])]);
    // One CR belongs to the line's end, others part words.
    assert_eq!(requests(b"a\rb\r\r\n"), [OwnedArgv::from_slices(&["a", "b"])]);
}

#[test]
fn nothing_is_made_of_empty_requests() {
    let outcome = whole(b"\r\n\n  \r\n*0\r\n*-10\r\n*-9223372036854775808\r\nPING\r\n");
    assert_eq!(outcome.requests, [OwnedArgv::from_slices(&["PING"])]);
    assert_eq!(outcome.error, None);
}

#[test]
fn what_stands_in_the_place_of_line_feeds_and_line_ends_is_ignored() {
    let ping = OwnedArgv::from_slices(&["PING"]);
    assert_eq!(requests(b"*1\rX$4\rYPINGZZ")[0], ping);
    assert_eq!(requests(b"*1\r\n$4\r\nPINGab*1\r\n$4\r\nPING\r\n"), [ping.clone(), ping]);
}

#[test]
fn malformed_requests_get_redis_errors() {
    let cases: &[(&[u8], &str)] = &[
        (b"*\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*a\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*00\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*01\r\n$4\r\nPING\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*+1\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"* 1\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*1 \r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*-0\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*2147483647\r\n", ""),
        (b"*2147483648\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*3000000000\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*9223372036854775808\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*1\r\nfoo\r\n", r"-ERR Protocol error: expected \'$\', got \'f\'"),
        (b"*1\r\n\r\n", r"-ERR Protocol error: expected \'$\', got \' \'"),
        (b"*1\r\n\n\r\n", r"-ERR Protocol error: expected \'$\', got \' \'"),
        (b"*1\r\n\xff\r\n", r"-ERR Protocol error: expected \'$\', got \'\xff\'"),
        (b"*1\r\n:4\r\nPING\r\n", r"-ERR Protocol error: expected \'$\', got \':\'"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", r"-ERR Protocol error: expected \'$\', got \'f\'"),
        (b"*1\r\n$\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$-10\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$04\r\nPING\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$4x\r\nPING\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$blabla\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$536870912\r\n", ""),
        (b"*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$2000000000\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$99999999999999999999\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"PING \"a\r\n", "-ERR Protocol error: unbalanced quotes in request"),
        (b"PING 'a\r\n", "-ERR Protocol error: unbalanced quotes in request"),
        (b"PING \"a\"b\r\n", "-ERR Protocol error: unbalanced quotes in request"),
        (b"set \"\"\"test-key\"\"\" test-value\r\n", "-ERR Protocol error: unbalanced quotes in request"),
    ];
    for (stream, reply) in cases {
        assert_eq!(refusal(stream, &Limits::default()), *reply, "{}", stream.escape_ascii());
    }
}

#[test]
fn endless_lines_are_refused_when_they_are_too_long() {
    let cases: &[(&[u8], &str)] = &[
        (b"", "-ERR Protocol error: too big inline request"),
        (b"*", "-ERR Protocol error: too big mbulk count string"),
        (b"*1\r\n$", "-ERR Protocol error: too big bulk count string"),
        (b"*1\r\n", "-ERR Protocol error: too big bulk count string"),
    ];
    for (start, reply) in cases {
        let line_start = start.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let mut stream = start.to_vec();
        stream.resize(line_start + INLINE_LEN_MAX, b'1');
        assert_eq!(refusal(&stream, &Limits::default()), "", "{}", start.escape_ascii());
        stream.push(b'1');
        assert_eq!(refusal(&stream, &Limits::default()), *reply, "{}", start.escape_ascii());
        // However much of what follows has arrived with it, line end included.
        stream.extend(b"1\r\n");
        assert_eq!(refusal(&stream, &Limits::default()), *reply, "{}", start.escape_ascii());
    }
}

#[test]
fn a_line_of_the_longest_length_is_read() {
    let mut stream = vec![b'a'; INLINE_LEN_MAX];
    stream.push(b'\n');
    assert_eq!(requests(&stream)[0].as_argv()[0].len(), INLINE_LEN_MAX);
}

/// Redis looks for line ends with `strchr`, which a zero byte stops: the line never ends. Clients out of step with the
/// protocol are found out by the length of what they send instead.
#[test]
fn a_zero_byte_in_a_line_keeps_it_from_ending() {
    let cases: &[(&[u8], &str)] = &[
        (b"PING\x00\r\nPING\r\n", "-ERR Protocol error: too big inline request"),
        (b"\x00", "-ERR Protocol error: too big inline request"),
        (b"$\x00", "-ERR Protocol error: too big inline request"),
        (b"*\x00", "-ERR Protocol error: too big mbulk count string"),
        (b"*\x001\r\n$4\r\nPING\r\n", "-ERR Protocol error: too big mbulk count string"),
        (b"*1\r\n\x00$4\r\nPING\r\n", "-ERR Protocol error: too big bulk count string"),
        (b"*1\r\n$\x004\r\nPING\r\n", "-ERR Protocol error: too big bulk count string"),
    ];
    for (start, reply) in cases {
        let mut stream = start.to_vec();
        assert_eq!(refusal(&stream, &Limits::default()), "", "{}", start.escape_ascii());
        stream.resize(INLINE_LEN_MAX + 10, b'\n');
        assert_eq!(refusal(&stream, &Limits::default()), *reply, "{}", start.escape_ascii());
    }
}

#[test]
fn clients_that_must_authenticate_get_small_limits() {
    let limits = Limits { authenticated: false, ..Limits::default() };
    let cases: &[(&[u8], &str)] = &[
        (b"*10\r\n$16384\r\n", ""),
        (b"*11\r\n", "-ERR Protocol error: unauthenticated multibulk length"),
        (b"*2147483648\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*0011\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length"),
        (b"*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length"),
    ];
    for (stream, reply) in cases {
        assert_eq!(refusal(stream, &limits), *reply, "{}", stream.escape_ascii());
    }
}

#[test]
fn configured_limits_are_kept() {
    let limits =
        Limits { bulk_len_max: 5_000_000_000, multibulk_len_max: 2, inline_len_max: 16, authenticated: true };
    let cases: &[(&[u8], &str)] = &[
        (b"*2\r\n", ""),
        (b"*3\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n$5000000001\r\n", "-ERR Protocol error: invalid bulk length"),
        // Allowed, but no request is longer than 4 GiB.
        (b"*1\r\n$4294967296\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$4294967277\r\n", "-ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$4294967276\r\n", ""),
        (b"12345678901234567", "-ERR Protocol error: too big inline request"),
        (b"*1234567890123456", "-ERR Protocol error: too big mbulk count string"),
    ];
    for (stream, reply) in cases {
        assert_eq!(refusal(stream, &limits), *reply, "{}", stream.escape_ascii());
    }
}

#[test]
fn missing_bytes_of_an_argument_are_counted() {
    let stream = encode(&[b"SET", b"k", b"0123456789"]);
    let value_start = stream.len() - 12;
    let mut parser = RequestParser::default();
    let mut args = Vec::new();
    for end in 1..stream.len() {
        let parsed = parser.parse(&stream[..end], &Limits::default(), &mut args);
        let Parsed::Incomplete { missing } = parsed else { panic!("{parsed:?} at {end}") };
        if end >= value_start {
            assert_eq!(missing, Some(stream.len() - end));
        }
    }
    assert_eq!(
        parser.parse(&stream, &Limits::default(), &mut args),
        Parsed::Request { consumed: stream.len() }
    );
    assert_eq!(args.len(), 3);
}

#[test]
fn a_reset_parser_starts_anew() {
    let mut parser = RequestParser::default();
    let mut args = Vec::new();
    let incomplete = parser.parse(b"*2\r\n$1\r\na\r\n$9\r\nb", &Limits::default(), &mut args);
    assert_eq!(incomplete, Parsed::Incomplete { missing: Some(10) });

    parser.reset();

    assert_eq!(parser.parse(b"PING\n", &Limits::default(), &mut args), Parsed::Request { consumed: 5 });
    assert_eq!(args, [ArgRange { start: 0, len: 4 }]);
}

#[test]
fn declared_sizes_allocate_nothing() {
    let mut parser = RequestParser::default();
    let mut args = Vec::new();
    let stream = b"*2147483647\r\n$3\r\nSET\r\n$536870912\r\nabc";

    let parsed = parser.parse(stream, &Limits::default(), &mut args);

    assert_eq!(parsed, Parsed::Incomplete { missing: Some(536_870_911) });
    assert!(args.capacity() * size_of::<ArgRange>() + parser.heap_len_bytes() < 1024);
}

#[test]
fn a_finished_request_leaves_no_memory_behind() {
    let args = vec![&b"x"[..]; 100_000];
    let stream = encode(&args);
    let mut parser = RequestParser::default();
    let mut ranges = Vec::new();
    let incomplete = parser.parse(&stream[..stream.len() - 1], &Limits::default(), &mut ranges);
    assert_eq!(incomplete, Parsed::Incomplete { missing: Some(1) });
    assert!(parser.heap_len_bytes() >= 99_999 * size_of::<ArgRange>());

    let parsed = parser.parse(&stream, &Limits::default(), &mut ranges);

    assert_eq!(parsed, Parsed::Request { consumed: stream.len() });
    assert_eq!(ranges.len(), args.len());
    assert_eq!(parser.heap_len_bytes(), 0);
}

#[test]
fn pipelines_of_a_hundred_thousand_requests_are_read_in_one_go() {
    let mut stream = Vec::new();
    for i in 0..100_000 {
        stream.extend(encode(&[b"SET", format!("key:{i}").as_bytes(), b"v"]));
    }
    let requests = requests(&stream);
    assert_eq!(requests.len(), 100_000);
    assert_eq!(requests[99_999], OwnedArgv::from_slices(&["SET", "key:99999", "v"]));
}

#[test]
fn every_cut_of_a_pipeline_gives_the_same_requests() {
    let mut stream = encode(&[b"SET", b"k", b"a\r\nb"]);
    stream.extend(b"PING\r\n\r\n*0\r\nECHO \"a b\" 'c'\n");
    stream.extend(encode(&[b"MGET", b"", b"0123456789012", b"$4\r\nPING\r\n"]));
    stream.extend(b"*-1\r\n*1\r\n$4\r\nQUIT\r\n*2\r\n$1\r\na\r\n$-1\r\n");
    let expected = whole(&stream);
    assert_eq!(expected.requests.len(), 5);
    assert_eq!(expected.error, Some(ProtocolError::InvalidBulkLen));

    for cut in 0..stream.len() {
        for second_cut in cut..stream.len() {
            let cuts = [cut, second_cut];
            assert_eq!(outcome(&stream, &cuts, &Limits::default()), expected, "cut at {cuts:?}");
        }
    }
    let every_byte: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(outcome(&stream, &every_byte, &Limits::default()), expected);
}

#[test]
fn random_streams_in_random_pieces_give_the_same_requests() {
    with_seed(|rng| {
        for _ in 0..20_000 {
            let stream = random_stream(rng);
            let limits = Limits {
                inline_len_max: *rng.pick(&[5, 20, INLINE_LEN_MAX]),
                bulk_len_max: *rng.pick(&[3, 1 << 29]),
                authenticated: !rng.one_in(4),
                ..Limits::default()
            };
            let mut cuts: Vec<usize> = (0..rng.below(8)).map(|_| rng.below(stream.len() + 1)).collect();
            cuts.sort_unstable();
            assert_eq!(
                outcome(&stream, &cuts, &limits),
                outcome(&stream, &[], &limits),
                "{} cut at {cuts:?}, {limits:?}",
                stream.escape_ascii()
            );
        }
    });
}

/// Some requests, whole or with a few bytes changed.
fn random_stream(rng: &mut Rng) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..=rng.below(5) {
        if rng.one_in(3) {
            for _ in 0..rng.below(12) {
                stream.push(*rng.pick(b"ab \"'\\x4\t\r"));
            }
            stream.extend(*rng.pick(&[&b"\r\n"[..], b"\n"]));
        } else {
            let args: Vec<Vec<u8>> = (0..rng.below(6))
                .map(|_| {
                    let len = rng.below(14);
                    rng.bytes(len)
                })
                .collect();
            stream.extend(encode(&args.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        }
    }
    if rng.one_in(2) {
        for _ in 0..=rng.below(3) {
            let at = rng.below(stream.len());
            stream[at] = *rng.pick(b"*$019-\r\n\0 x");
        }
    }
    if rng.one_in(4) {
        stream.truncate(rng.below(stream.len() + 1));
    }
    stream
}

#[test]
fn a_request_that_begins_as_one_before_it_is_parsed_as_any_other() {
    with_seed(|random| {
        let limits = Limits { bulk_len_max: 300, ..Limits::default() };
        let names: [&[u8]; 6] = [b"GET", b"get", b"SET", b"HSETNX", b"A", b"FOURTEENLETTER"];
        let mut beginnings: Vec<Beginning> = Vec::new();
        let mut alike = 0;
        for _ in 0..2000 {
            let mut args: Vec<Vec<u8>> = vec![names[random.below(names.len())].to_vec()];
            for _ in 0..random.below(4) {
                args.push(vec![b'x'; [0, 1, 9, 10, 99, 100, 301][random.below(7)]]);
            }
            let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
            for arg in &args {
                bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                bytes.extend_from_slice(arg);
                bytes.extend_from_slice(b"\r\n");
            }
            match random.below(6) {
                0 => bytes.truncate(random.below(bytes.len()) + 1),
                1 => {
                    let at = random.below(bytes.len());
                    bytes[at] = *b"*$\r\n0:".get(random.below(6)).expect("below the length");
                }
                _ => bytes.extend_from_slice(b"*1\r\n$4\r\nPING\r\n"),
            }

            let mut expected = vec![ArgRange { start: 1, len: 2 }];
            let outcome = RequestParser::default().parse(&bytes, &limits, &mut expected);
            let mut parser = RequestParser::default();
            for beginning in &beginnings {
                let mut ranges = vec![ArgRange { start: 1, len: 2 }];
                if let Some(consumed) = parser.parse_alike(&bytes, beginning, &limits, &mut ranges) {
                    alike += 1;
                    assert_eq!((Parsed::Request { consumed }, &ranges), (outcome, &expected));
                    break;
                }
                assert_eq!(ranges.len(), 1, "a request that is not alike leaves nothing");
            }
            if beginnings.len() < 30 && expected.len() > 1 {
                beginnings.extend(Beginning::of(&bytes));
            }
        }
        assert!(alike > 500, "{alike}");
    });
}
