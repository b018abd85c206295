-- Count a question for a stream, unless a limit is reached. KEYS: 1 used (hash), 2 held (sorted set)
-- ARGV: now, stream id, limits of questions and of tokens ('' = none), seconds to hold at most, time at which the keys
-- expire
-- Reply: {1 taken now | 2 taken or settled before | 0 refused, questions, tokens}
local now = clock(ARGV[1])
-- What nobody settled stays counted.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '(' .. stamp(-now), '(' .. stamp(now))
local used = redis.call('HMGET', KEYS[1], 'questions', 'tokens')
local questions, tokens = tonumber(used[1] or '0'), tonumber(used[2] or '0')
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return {2, questions, tokens} end
if (ARGV[3] ~= '' and questions >= tonumber(ARGV[3])) or (ARGV[4] ~= '' and tokens >= tonumber(ARGV[4])) then
  return {0, questions, tokens}
end
redis.call('HSET', KEYS[1], 'questions', questions + 1, 'max_questions', ARGV[3], 'max_tokens', ARGV[4])
redis.call('ZADD', KEYS[2], stamp(now + ARGV[5]), ARGV[2])
for i = 1, 2 do redis.call('PEXPIRE', KEYS[i], math.ceil((ARGV[6] - now) * 1000)) end
return {1, questions + 1, tokens}
