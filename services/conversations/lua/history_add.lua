-- Add an exchange to a conversation's history, unless the conversation was reset since the question. One that another
-- owner adds again for the same stream replaces the first one.
-- KEYS: 1 history, 2 reset count
-- ARGV: stream id, exchange, reset count that it belongs to, number of exchanges kept, seconds to live
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[3] then return 0 end
local last = redis.call('LINDEX', KEYS[1], -1)
if last and string.sub(last, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then redis.call('RPOP', KEYS[1]) end
redis.call('RPUSH', KEYS[1], ARGV[1] .. ' ' .. ARGV[2])
redis.call('LTRIM', KEYS[1], -ARGV[4], -1)
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[5] * 1000))
return 1
