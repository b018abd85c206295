-- Start a conversation anew. KEYS: 1 the id, 2 how often it was reset. ARGV: seconds
redis.call('DEL', KEYS[1])
local resets = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[1] * 1000))
return resets
