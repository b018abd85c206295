-- Count in a window that begins with its first hit. KEYS: 1 the window. ARGV: how many, seconds it lives
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
-- One without a life would count for ever, whatever took it away.
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return count
