-- Claim the answer that is due first, for `lease` seconds. KEYS: 1 queue. ARGV: now, lease
-- Reply: {now, answers in the queue, stream id or '', seconds until the next one is due or ''}
local now = clock(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', stamp(now), 'LIMIT', 0, 1)[1]
if due then redis.call('ZADD', KEYS[1], stamp(now + ARGV[2]), due) end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
local wait = first and stamp(math.max(0, tonumber(first) - now)) or ''
return {stamp(now), redis.call('ZCARD', KEYS[1]), due or '', due and '0' or wait}
