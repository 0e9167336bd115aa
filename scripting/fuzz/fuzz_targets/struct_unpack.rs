//! Formats and data of any bytes: formats are obeyed or refused; what is read from data by a format is written by the same
//! format, and read again.
//!
//! Input: a position, the length of the format, the format, the data.

#![no_main]

use libfuzzer_sys::fuzz_target;

mod state;

const CHECK: &str = "
    local input = ...
    local position, len = string.byte(input, 1) or 1, (string.byte(input, 2) or 0) % 32
    local format, data = string.sub(input, 3, 2 + len), string.sub(input, 3 + len)
    pcall(struct.unpack, format, data, position - 8)
    local sized, size = pcall(struct.size, format)
    local succeeded, values = pcall(function() return { struct.unpack(format, data) } end)
    if not succeeded then return 'ok' end
    local last = #values
    assert(values[last] <= #data + 1, 'read past the data')
    if sized and not string.find(format, '[^%w<>! ]') then
        assert(values[last] - 1 == size, 'another size')
    end
    -- What takes a size from the value before does not give that value.
    if last > 200 or string.find(format, 'c0') then return 'ok' end
    local arguments = {}
    for index = 1, last - 1 do arguments[index] = values[index] end
    local packed = struct.pack(format, unpack(arguments))
    assert(#packed == values[last] - 1, 'another length')
    local again = { struct.unpack(format, packed) }
    assert(#again == last, 'another count')
    return 'ok'";

fuzz_target!(|input: &[u8]| state::run(CHECK, input));
