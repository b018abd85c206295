-- Read what the log and the usage keep of a stream. KEYS: of a stream. ARGV: bytes of the text at most, names of fields
-- Reply: {the fields, time of the first text or '', time of the last chunk if it is final or '', number of sources, bytes
--        of the text, the text}, or false if there is no such stream
local fields = redis.call('HMGET', KEYS[1], 'status', 'sources', unpack(ARGV, 2))
if not fields[1] then return false end
-- A quotation mark within a chunk's content is escaped, so these patterns match the chunk's own members only.
local function time_of(entry)
  return entry and string.match(entry, '"timestamp":"([^"]*)"') or ''
end
local first, last = redis.call('LINDEX', KEYS[2], 0), redis.call('LINDEX', KEYS[2], -1)
if first and string.find(first, '"is_error":true', 1, true) then first = false end
if first and string.find(first, '"content":""', 1, true) then first = false end
if last and not string.find(last, '"is_final":true', 1, true) then last = false end
local named, sources = 0, fields[2]
if sources and sources ~= '' then
  local read, list = pcall(cjson.decode, sources)
  named = read and #list or 0
end
for i = 1, #fields do fields[i] = fields[i] or '' end
fields[2] = ''
local limit = tonumber(ARGV[1])
return {fields, time_of(first), time_of(last), named, redis.call('STRLEN', KEYS[3]),
        limit > 0 and redis.call('GETRANGE', KEYS[3], 0, limit - 1) or ''}
