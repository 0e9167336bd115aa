//! Request streams of any bytes: what they mean does not depend on how they arrive, and no bytes do harm.
//!
//! Input: a byte for the limits, a byte for the number of cuts, two bytes a cut, then the stream.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shardis_pure::protocol::{ArgRange, Argv, Limits, OwnedArgv, Parsed, ProtocolError, RequestParser};

/// A stream's requests in order, the error it ended in, if it did, and how much of it they take.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    requests: Vec<OwnedArgv>,
    error: Option<ProtocolError>,
    consumed: usize,
}

/// What a connection makes of `stream` when it arrives up to each offset of `arrivals` in turn.
fn outcome(stream: &[u8], arrivals: &[usize], limits: &Limits) -> Outcome {
    let mut parser = RequestParser::default();
    let mut args: Vec<ArgRange> = Vec::new();
    let mut outcome = Outcome { requests: Vec::new(), error: None, consumed: 0 };
    for &arrived in arrivals {
        loop {
            let buf = &stream[outcome.consumed..arrived];
            args.clear();
            match parser.parse(buf, limits, &mut args) {
                Parsed::Request { consumed } => {
                    assert!(!args.is_empty());
                    outcome.requests.push(OwnedArgv::from_argv(Argv::new(&buf[..consumed], &args)));
                    outcome.consumed += consumed;
                }
                Parsed::Inline { consumed, argv } => {
                    assert!(args.is_empty() && !argv.is_empty());
                    outcome.requests.push(argv);
                    outcome.consumed += consumed;
                }
                Parsed::Empty { consumed } => {
                    assert!(args.is_empty() && consumed > 0);
                    outcome.consumed += consumed;
                }
                Parsed::Incomplete { missing } => {
                    assert!(args.is_empty() && missing != Some(0));
                    // What it holds is bounded by what has arrived, whatever was announced.
                    assert!(parser.heap_len_bytes() <= 64 + 4 * buf.len());
                    break;
                }
                Parsed::Error(error) => {
                    assert!(args.is_empty());
                    assert!(!error.text().contains(&b'\r') && !error.text().contains(&b'\n'));
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
    }
    outcome
}

fuzz_target!(|input: &[u8]| {
    let [limit_bits, cut_count, rest @ ..] = input else { return };
    let cuts_len = 2 * usize::from(cut_count % 16);
    let Some((cuts, stream)) = rest.split_at_checked(cuts_len) else { return };

    let limits = Limits {
        bulk_len_max: if limit_bits & 1 == 0 { 1 << 29 } else { 10 },
        multibulk_len_max: if limit_bits & 2 == 0 { i32::MAX.into() } else { 3 },
        // Lines of the usual limit would have to be found by the fuzzer; short ones meet the limit often.
        inline_len_max: if limit_bits & 4 == 0 { 64 * 1024 } else { 24 },
        authenticated: limit_bits & 8 == 0,
    };
    let whole = outcome(stream, &[stream.len()], &limits);

    let mut arrivals: Vec<usize> = cuts
        .chunks_exact(2)
        .map(|cut| usize::from(u16::from_le_bytes([cut[0], cut[1]])) % (stream.len() + 1))
        .collect();
    arrivals.sort_unstable();
    arrivals.push(stream.len());
    assert_eq!(outcome(stream, &arrivals, &limits), whole);

    if stream.len() < 512 {
        let every_byte: Vec<usize> = (0..=stream.len()).collect();
        assert_eq!(outcome(stream, &every_byte, &limits), whole);
    }
});
