-- Remove entries from the queue, and let others be due again. KEYS: 1 queue
-- ARGV: now, seconds until the others are due, number of entries to remove, these, the others
local removed = tonumber(ARGV[3])
for i = 4, #ARGV do
  if i < 4 + removed then
    redis.call('ZREM', KEYS[1], ARGV[i])
  else
    redis.call('ZADD', KEYS[1], 'XX', stamp(clock(ARGV[1]) + ARGV[2]), ARGV[i])
  end
end
return 1
