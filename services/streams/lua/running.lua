-- Index running streams by the end of their lease. KEYS: 1 index. ARGV: now, lease, seconds the index lives, stream ids
local lease_end = stamp(clock(ARGV[1]) + ARGV[2])
for i = 4, #ARGV do redis.call('ZADD', KEYS[1], lease_end, ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] * 1000))
return #ARGV - 3
