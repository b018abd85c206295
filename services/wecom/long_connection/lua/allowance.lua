-- Count one message to a chat, unless a window of time is full. KEYS: 1 messages (sorted set: name by time)
-- ARGV: now, name of the message, then seconds and the most messages of each window, the longest window last
-- Reply: seconds until the message may be counted, as text; '0.000' for counted
-- A message that is counted again under its name counts once, at its newest time.
local now, wait, windows = clock(ARGV[1]), 0, {}
local before = redis.call('ZSCORE', KEYS[1], ARGV[2])
if before then redis.call('ZREM', KEYS[1], ARGV[2]) end
for i = 3, #ARGV, 2 do
  local seconds, most = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  -- There is room once the message that is `most` places from the newest one has left the window.
  local entry = redis.call('ZREVRANGE', KEYS[1], most - 1, most - 1, 'WITHSCORES')
  if entry[2] then wait = math.max(wait, tonumber(entry[2]) + seconds - now) end
end
local longest = ARGV[#ARGV - 1]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - longest)
if wait <= 0 then
  redis.call('ZADD', KEYS[1], stamp(now), ARGV[2])
elseif before then
  redis.call('ZADD', KEYS[1], before, ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], longest * 1000)
return stamp(wait)
