-- List the chats whose next push is due, the one that waits longest first. KEYS: 1 due (sorted set)
-- ARGV: now, most chats
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', clock(ARGV[1]), 'LIMIT', 0, ARGV[2])
