-- Count in a fixed window, which the first hit starts. KEYS: 1 the window. ARGV: amount, seconds it lives
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
-- A counter that lost its expiry would count for ever.
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return count
