-- Claim the streams that are due first, for `lease` seconds. KEYS: as of usage_add.lua. ARGV: now, lease, most
-- Reply: {now, streams in the queue, streams that found no room since the last claim, claimed entries …}
local now = clock(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', stamp(now), 'LIMIT', 0, ARGV[3])
for _, entry in ipairs(due) do redis.call('ZADD', KEYS[1], stamp(now + ARGV[2]), entry) end
local dropped = redis.call('GET', KEYS[2])
if dropped then redis.call('DEL', KEYS[2]) end
return {stamp(now), redis.call('ZCARD', KEYS[1]), tonumber(dropped or '0'), unpack(due)}
