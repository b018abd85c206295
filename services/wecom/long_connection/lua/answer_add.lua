-- Record an open answer. KEYS: 1 open answers, 2 the answer's record
-- ARGV: now, stream id, target, seconds that the record lives, most open answers
-- Reply: 1 recorded now or before, 0 too many are open
if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then return 0 end
redis.call('HSET', KEYS[2], 'target', ARGV[3])
redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[4] * 1000))
redis.call('ZADD', KEYS[1], stamp(clock(ARGV[1])), ARGV[2])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[4] * 1000))
return 1
