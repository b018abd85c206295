-- Note a person's question or command in a chat, once; return the notes before it.
-- KEYS: 1 stream ids, oldest first, 2 the last question
-- ARGV: stream id, the sealed question ('' of a command), '1' for a command that gets an answer, seconds to live,
--       number of stream ids kept
-- Reply: of a question {0 new | 1 noted before}
--        of a command {0 | 1, stream ids noted before it, sealed last question or '', its stream id or ''}
local before, seen = {}, 0
for i, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if id == ARGV[1] then
    seen = 1
    break
  end
  before[i] = id
end
local ttl = math.ceil(ARGV[4] * 1000)
if seen == 0 then
  redis.call('RPUSH', KEYS[1], ARGV[1])
  redis.call('LTRIM', KEYS[1], -ARGV[5], -1)
  redis.call('PEXPIRE', KEYS[1], ttl)
  if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], 'question', ARGV[2]) end
  if ARGV[2] ~= '' or (ARGV[3] == '1' and redis.call('EXISTS', KEYS[2]) == 1) then
    redis.call('HSET', KEYS[2], 'stream_id', ARGV[1])
    redis.call('PEXPIRE', KEYS[2], ttl)
  end
end
if ARGV[2] ~= '' then return {seen} end
local last = redis.call('HMGET', KEYS[2], 'question', 'stream_id')
return {seen, before, last[1] or '', last[2] or ''}
