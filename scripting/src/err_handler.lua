local getinfo, type, tostring = ...
return function(err)
    local where = getinfo(2, "Sl")
    if where and where.what == "C" then
        where = getinfo(3, "Sl")
    end
    if type(err) ~= "table" then
        err = {err = "ERR " .. tostring(err)}
    end
    if where then err.source = where.source err.line = where.currentline end
    return err
end
