//! MessagePack of any bytes: it is read or refused, in one go and value by value alike; what was read is written, and read
//! again as the same.
//!
//! Input: a byte for the offset, then the bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

mod state;

const CHECK: &str = "
    local input = ...
    local offset = (string.byte(input, 1) or 0) % 8
    local packed = string.sub(input, 2)
    local function known(text)
        return string.find(text, 'Missing bytes') or string.find(text, 'Bad data format')
            or string.find(text, 'stack overflow') or string.find(text, 'table index is')
            or string.find(text, 'Start offset')
    end
    pcall(cmsgpack.unpack_limit, packed, 2, offset)
    -- Lua's own `pcall` is not made for so many results.
    local succeeded, all = pcall(function() return { cmsgpack.unpack(packed) } end)
    if not succeeded then
        assert(known(all), all)
        return 'ok'
    end
    local at, count = 0, 0
    while at ~= -1 do
        local succeeded, next = pcall(cmsgpack.unpack_one, packed, at)
        assert(succeeded, next)
        assert(next == -1 or next > at, 'no progress')
        at = next
        count = count + 1
    end
    local depth
    function depth(value)
        if type(value) ~= 'table' then return 0 end
        local most = 0
        for key, element in pairs(value) do most = math.max(most, depth(key), depth(element)) end
        return 1 + most
    end
    for index = 1, math.min(#all, 20) do
        -- Deeper tables are written as nil.
        if depth(all[index]) <= 16 then
            local again = cmsgpack.pack(all[index])
            assert(#cmsgpack.pack(cmsgpack.unpack(again)) == #again, 'another length')
        end
    end
    return 'ok'";

fuzz_target!(|input: &[u8]| state::run(CHECK, input));
