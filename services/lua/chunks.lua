-- The chunks from a cursor on. ARGV: now, cursor, count
-- Reply: {status, error_code, start, length, chunks, access, epoch, lapsed, waiting, owner} or false
local h = redis.call('HMGET', KEYS[1], 'status', 'error_code', 'start', 'read', 'access', 'epoch', 'lease', 'waiting',
                     'owner')
if not h[1] then return false end
local length, cursor = redis.call('LLEN', KEYS[2]), tonumber(ARGV[2])
local chunks = redis.call('LRANGE', KEYS[2], cursor, cursor + ARGV[3] - 1)
-- A Redis that takes no writes is still read.
if #chunks > 0 and cursor + #chunks > tonumber(h[4] or '0') then
  redis.pcall('HSET', KEYS[1], 'read', cursor + #chunks)
end
local lapsed = 0
if h[1] == 'processing' and clock(ARGV[1]) >= tonumber(h[7] or '0') then lapsed = 1 end
return {h[1], h[2] or '', tonumber(h[3]), length, chunks, h[5] or '', tonumber(h[6]), lapsed, h[8] or '', h[9] or ''}
