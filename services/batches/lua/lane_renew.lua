-- Renew a worker and its lanes. KEYS: 1 lanes by the end of their lease, 2 owners, 3 suspects, 4 workers
-- ARGV: now, lease, seconds the keys live, worker, 1 if it takes lanes or 0 if it leaves, then per lane its number
--       and token
-- Reply: {living workers, lanes that have another owner ...}
local now = clock(ARGV[1])
if ARGV[5] == '1' then redis.call('ZADD', KEYS[4], stamp(now), ARGV[4]) else redis.call('ZREM', KEYS[4], ARGV[4]) end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', stamp(now - ARGV[2]))
local reply = {redis.call('ZCARD', KEYS[4])}
for i = 6, #ARGV, 2 do
  local owner = redis.call('HGET', KEYS[2], ARGV[i])
  -- A lane without an owner: Redis lost it.
  if owner and owner ~= ARGV[i + 1] then
    reply[#reply + 1] = tonumber(ARGV[i])
  else
    redis.call('ZADD', KEYS[1], stamp(now + ARGV[2]), ARGV[i])
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    redis.call('HDEL', KEYS[3], ARGV[i])
  end
end
redis.call('HSETNX', KEYS[3], 'since', stamp(now))
for k = 1, 4 do redis.call('PEXPIRE', KEYS[k], math.ceil(ARGV[3] * 1000)) end
return reply
