-- List the open sockets. KEYS: 1 open, 2 renewed. ARGV: now, seconds after which an unrenewed socket expires
-- Reply: {now, {name and token, time of renewal, ...}, {token, record, ...}}
local now = clock(ARGV[1])
local renewed = redis.call('ZRANGEBYSCORE', KEYS[2], stamp(now - ARGV[2]), '+inf', 'WITHSCORES')
return {stamp(now), renewed, redis.call('HGETALL', KEYS[1])}
