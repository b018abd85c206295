-- The noted streams whose lease is over, the longest first. KEYS: 1 the index. ARGV: now, how many
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', stamp(clock(ARGV[1])), 'LIMIT', 0, ARGV[2])
