-- The chunks from a cursor on. ARGV: cursor, count
-- Reply: {status, error_code, start, length, chunks}
local h = redis.call('HMGET', KEYS[1], 'status', 'error_code', 'start', 'read', 'access')
if not h[1] then return false end
local length, cursor = redis.call('LLEN', KEYS[2]), tonumber(ARGV[1])
local chunks = redis.call('LRANGE', KEYS[2], cursor, cursor + ARGV[2] - 1)
if cursor + #chunks > tonumber(h[4] or '0') then redis.call('HSET', KEYS[1], 'read', cursor + #chunks) end
return {h[1], h[2] or '', tonumber(h[3]), length, chunks, h[5] or ''}
