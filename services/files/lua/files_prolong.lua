-- Let files count until another end; those that are not counted stay so.
-- KEYS: 1 ends (sorted set: name -> end), 2 bytes. ARGV: now, seconds until the end, names
local ms = math.ceil(ARGV[2] * 1000)
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], 'XX', stamp(clock(ARGV[1]) + ARGV[2]), ARGV[i]) end
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end
