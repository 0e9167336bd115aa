//! JSON of any bytes: it is read or refused, and what was read is written, and read again as the same.
//!
//! Input: a byte for the settings, then the text.

#![no_main]

use libfuzzer_sys::fuzz_target;

mod state;

const CHECK: &str = "
    local input = ...
    local json = cjson.new()
    local settings = string.byte(input, 1) or 0
    json.decode_invalid_numbers(settings % 2 == 1)
    json.encode_invalid_numbers(settings % 2 == 1)
    if settings % 4 >= 2 then json.encode_max_depth(5000) json.decode_max_depth(5000) end
    if settings % 8 >= 4 then json.encode_keep_buffer(false) end
    local succeeded, value = pcall(json.decode, string.sub(input, 2))
    if not succeeded then
        assert(string.find(value, '^Expected ') or string.find(value, '^Found too many')
            or string.find(value, '^JSON parser does not'), value)
        return 'ok'
    end
    local text
    succeeded, text = pcall(json.encode, value)
    if succeeded then
        local again = json.encode(json.decode(text))
        assert(#again == #text, 'another length')
    else
        -- What is read may be infinite.
        assert(string.find(text, 'must not be NaN or Inf') or string.find(text, 'excessive nesting'), text)
    end
    return 'ok'";

fuzz_target!(|input: &[u8]| state::run(CHECK, input));
