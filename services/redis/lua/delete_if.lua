-- Delete a key only while it holds this value: another's lock, or a newer token, stays.
-- KEYS: 1 the key. ARGV: the value
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
