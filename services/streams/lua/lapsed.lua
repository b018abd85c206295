-- Indexed streams whose lease is over, the oldest first. KEYS: 1 index. ARGV: now, limit
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', stamp(clock(ARGV[1])), 'LIMIT', 0, ARGV[2])
