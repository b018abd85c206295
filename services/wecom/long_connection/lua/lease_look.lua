-- Read a bot's lease. KEYS: 1 lease. ARGV: now, '1' if the caller stands by to take it
local now = clock(ARGV[1])
if ARGV[2] == '1' then redis.call('HSET', KEYS[1], 'looked', stamp(now)) end
return {stamp(now), unpack(redis.call('HMGET', KEYS[1], 'holder', 'fence', 'expires', 'leaving', 'subscribed',
                                      'problem', 'evicted', 'looked', 'paused'))}
