-- Take a lock, also when the reply to taking it was lost. KEYS: 1 the lock. ARGV: the holder's token, seconds
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', math.max(1, math.floor(ARGV[2] * 1000)))
return 1
