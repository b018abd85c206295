-- Settle what a stream holds, once. KEYS: as of quota_take.lua
-- ARGV: now, stream id, 1 if the question was asked (else it is counted no more), tokens, seconds for which it is
-- remembered that the stream has settled
-- Reply: 1 settled, 0 it holds nothing
local now = clock(ARGV[1])
local score = redis.call('ZSCORE', KEYS[2], ARGV[2])
if not score or tonumber(score) < 0 then return 0 end
redis.call('ZADD', KEYS[2], stamp(-(now + ARGV[5])), ARGV[2])
if ARGV[3] == '0' then
  redis.call('HINCRBY', KEYS[1], 'questions', -1)
elseif ARGV[4] ~= '0' then
  redis.call('HINCRBY', KEYS[1], 'tokens', ARGV[4])
end
return 1
