-- Take a lock. Works again for the same token, if the first reply was lost. KEYS: 1 lock. ARGV: token, seconds
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', math.max(1, math.floor(ARGV[2] * 1000)))
return 1
