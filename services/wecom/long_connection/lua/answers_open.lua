-- Return a bot's open answers, the oldest first, and drop those whose records have expired.
-- KEYS: 1 lease, 2 open answers. ARGV: now, fence, seconds that a record lives
-- Reply: {number of expired ones, stream ids...} or false where the fence is not the lease's
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[2] then return false end
local expired = redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', stamp(clock(ARGV[1]) - ARGV[3]))
return {expired, unpack(redis.call('ZRANGE', KEYS[2], 0, -1))}
