-- Claim the alerts of one message that were not posted yet. KEYS: 1 posted, 2 messages (sorted sets)
-- ARGV: now, seconds for which an alert is remembered, messages an hour, alerts that are remembered, the message's
-- token, then "firing" or "resolved" and the id of each alert
-- Reply: {messages left, the claimed alerts by number, from 0}; {-1} if the hour's messages are used up
local now = clock(ARGV[1])
for i = 1, 2 do redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', stamp(now)) end
local claimed = {}
for i = 6, #ARGV, 2 do
  local fired = redis.call('ZSCORE', KEYS[1], 'firing:' .. ARGV[i + 1])
  local over = redis.call('ZSCORE', KEYS[1], 'resolved:' .. ARGV[i + 1])
  if not over and (ARGV[i] == 'firing') == not fired then claimed[#claimed + 1] = i end
end
local left = tonumber(ARGV[3]) - redis.call('ZCARD', KEYS[2])
if #claimed == 0 then return {left} end
if left < 1 then return {-1} end
local reply = {left - 1}
for _, i in ipairs(claimed) do
  redis.call('ZADD', KEYS[1], stamp(now + ARGV[2]), ARGV[i] .. ':' .. ARGV[i + 1])
  reply[#reply + 1] = (i - 6) / 2
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[4]))
redis.call('ZADD', KEYS[2], stamp(now + 3600), ARGV[5])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] * 1000))
redis.call('PEXPIRE', KEYS[2], 3600 * 1000)
return reply
