-- Reset a conversation, once per command: a redelivered command must not delete later exchanges.
-- KEYS: 1 provider's conversation id, 2 reset count, 3 stream ids of the last commands, 4 history,
--       5 forms
-- ARGV: seconds to live, stream id of the command
-- Reply: reset count
for _, id in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  if id == ARGV[2] then return tonumber(redis.call('GET', KEYS[2]) or '0') end
end
redis.call('DEL', KEYS[1], KEYS[4], KEYS[5])
redis.call('LPUSH', KEYS[3], ARGV[2])
redis.call('LTRIM', KEYS[3], 0, 7)
local resets = redis.call('INCR', KEYS[2])
for k = 2, 3 do redis.call('PEXPIRE', KEYS[k], math.ceil(ARGV[1] * 1000)) end
return resets
