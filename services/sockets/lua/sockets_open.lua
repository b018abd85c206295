-- Make a new socket the newest of its name. KEYS: 1 newest, 2 open, 3 renewed
-- ARGV: now, seconds a socket counts without renewal, name, token, what it must come after, record
-- Reply: {its place in the order of its name, now}
local now = clock(ARGV[1])
local since = math.max(now, tonumber(ARGV[5]) + 0.001)
local held = redis.call('HGET', KEYS[1], ARGV[3])
if held then since = math.max(since, tonumber(string.match(held, '^%S+')) + 0.001) end
redis.call('HSET', KEYS[1], ARGV[3], stamp(since) .. ' ' .. ARGV[4])
redis.call('HSET', KEYS[2], ARGV[4], ARGV[6])
redis.call('ZADD', KEYS[3], stamp(now), ARGV[3] .. ' ' .. ARGV[4])
for k = 1, 3 do redis.call('PEXPIRE', KEYS[k], math.ceil(ARGV[2] * 1000)) end
return {stamp(since), stamp(now)}
