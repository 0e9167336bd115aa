local chunk, fault = loadstring(ARGV[1], '@user_script')
if not chunk then return 'syntax: ' .. fault end

local out = {}
local function put(text) out[#out + 1] = text end
local show
function show(value, depth)
    local kind = type(value)
    if kind == 'string' then
        put('"' .. value .. '"')
    elseif kind == 'number' then
        put(string.format('%.17g', value))
    elseif kind == 'table' then
        if depth > 150 then put('...') return end
        put('{')
        for key, element in pairs(value) do
            show(key, depth + 1)
            put('=')
            show(element, depth + 1)
            put(' ')
        end
        put('}')
    elseif kind == 'userdata' then
        put(tostring(value))
    elseif kind == 'boolean' or kind == 'nil' then
        put(tostring(value))
    else
        put(kind)
    end
end

local function tell(succeeded, ...)
    put(succeeded and 'ok' or 'error')
    for at = 1, math.min(select('#', ...), 100) do
        put(' ')
        show((select(at, ...)), 0)
    end
    if select('#', ...) > 100 then put(' and so on, ' .. select('#', ...)) end
    return table.concat(out)
end
return tell(pcall(chunk))
