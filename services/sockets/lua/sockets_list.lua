-- The sockets that are open. KEYS: 1 open, 2 renewed. ARGV: now, seconds a socket counts without renewal
-- Reply: {now, {name and token, when it was renewed, ...}, {token, record, ...}}
local now = clock(ARGV[1])
local renewed = redis.call('ZRANGEBYSCORE', KEYS[2], stamp(now - ARGV[2]), '+inf', 'WITHSCORES')
return {stamp(now), renewed, redis.call('HGETALL', KEYS[1])}
