-- Change a bot's lease if it is the caller's: let it end in `seconds`, and set fields. Return 1, or 0 if it is another's.
-- KEYS: 1 lease. ARGV: now, token, fence, seconds, '1' to write a lease again that Redis has lost, then pairs of fields
local now = clock(ARGV[1])
local h = redis.call('HMGET', KEYS[1], 'holder', 'fence')
local lost = not h[2] and ARGV[5] == '1'
if not lost and (h[1] ~= ARGV[2] or h[2] ~= ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'fence', ARGV[3], 'expires', stamp(now + tonumber(ARGV[4])),
           unpack(ARGV, 6))
return 1
