-- List pushes that expired in the queue, and claims without an outcome; at most 100 of each.
-- KEYS: 1 waiting (sorted set), 2 sending (sorted set). ARGV: now, seconds after which a claim counts as lost
-- Reply: ids of expired pushes, ids of lost claims
local now = clock(ARGV[1])
return {redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100),
        redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[2], 'LIMIT', 0, 100)}
