-- Begin a conversation anew, once per command: a redelivery must not end the conversation that came after it.
-- KEYS: 1 the id, 2 how often it was reset, 3 the streams of the last commands, 4 the turns. ARGV: seconds, the command's
-- stream id
-- Reply: how often it was reset
for _, id in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
  if id == ARGV[2] then return tonumber(redis.call('GET', KEYS[2]) or '0') end
end
redis.call('DEL', KEYS[1], KEYS[4])
redis.call('LPUSH', KEYS[3], ARGV[2])
redis.call('LTRIM', KEYS[3], 0, 7)
local resets = redis.call('INCR', KEYS[2])
for k = 2, 3 do redis.call('PEXPIRE', KEYS[k], math.ceil(ARGV[1] * 1000)) end
return resets
