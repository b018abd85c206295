-- Release lanes. KEYS: 1 lanes by the end of their lease, 2 owners, 3 suspects. ARGV: per lane its number and token
-- Reply: number of lanes that the caller still held
local released = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    redis.call('ZREM', KEYS[1], ARGV[i])
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
    released = released + 1
  end
end
return released
