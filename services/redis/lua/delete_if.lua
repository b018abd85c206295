-- Delete a key only if it has this value: another owner's lock, or a newer token, stays.
-- KEYS: 1 key. ARGV: value
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
