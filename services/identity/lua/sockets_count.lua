-- Count in a window that begins with its first hit. KEYS: 1 window. ARGV: number to add, seconds the window lives
local count = redis.call('INCRBY', KEYS[1], ARGV[1])
-- A counter without an expiry, for whatever reason, would never be reset.
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return count
