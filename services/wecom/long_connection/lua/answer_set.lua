-- Store a field of an answer's progress, for the holder of the bot's connection only. Safe to run again.
-- KEYS: 1 lease, 2 the answer's record. ARGV: fence, field, value
-- Reply: 1 stored, 0 the fence is not the lease's, or the record has expired
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
