-- Store the provider's conversation id, unless the conversation was reset since the question was asked.
-- KEYS: 1 the id, 2 how often the conversation was reset
-- ARGV: the id ('' deletes it), the reset count it belongs to, seconds
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[2] then return 0 end
if ARGV[1] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', math.ceil(ARGV[3] * 1000))
end
return 1
