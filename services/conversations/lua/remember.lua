-- Store the provider's conversation id, unless the conversation was reset since the question.
-- KEYS: 1 provider's conversation id, 2 reset count
-- ARGV: id ('' deletes it), reset count that the id belongs to, seconds to live
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[2] then return 0 end
if ARGV[1] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', math.ceil(ARGV[3] * 1000))
end
return 1
