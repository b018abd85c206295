-- Take a lane. KEYS: 1 lanes by the end of their lease, 2 owners, 3 suspects
-- ARGV: now, lease, grace, seconds the keys live, lane, token of the new owner
-- Reply: 1 taken, 0 it has another owner, or that owner's lease ended less than the grace ago
local now, lane, token = clock(ARGV[1]), ARGV[5], ARGV[6]
local owner = redis.call('HGET', KEYS[2], lane)
if owner and owner ~= token then
  if now < tonumber(redis.call('ZSCORE', KEYS[1], lane) or '0') then return 0 end
  -- After an outage every lease is over. A living owner renews within the grace, which removes the mark.
  redis.call('HSETNX', KEYS[3], lane, stamp(now))
  if now < tonumber(redis.call('HGET', KEYS[3], lane)) + ARGV[3] then return 0 end
end
redis.call('ZADD', KEYS[1], stamp(now + ARGV[2]), lane)
redis.call('HSET', KEYS[2], lane, token)
redis.call('HDEL', KEYS[3], lane)
for k = 1, 3 do redis.call('PEXPIRE', KEYS[k], math.ceil(ARGV[4] * 1000)) end
return 1
