-- Take one of a user's slots for a stream. KEYS: 1 slots (sorted set of stream ids by the end of the slot)
-- ARGV: now, stream id, number of slots, seconds
-- Reply: 0 full, 1 taken now, 2 taken before
local now = clock(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZSCORE', KEYS[1], ARGV[2]) then return 2 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], stamp(now + ARGV[4]), ARGV[2])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[4] * 1000))
return 1
