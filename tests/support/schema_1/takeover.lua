-- Mark a lapsed stream, or take it over once the mark is old enough (design: takeover).
-- ARGV: now, the new owner, lease
-- Reply: {'taken', epoch, start, length, question} {'suspect'} {'alive'} {'ended'} {'gone'}
local now = clock(ARGV[1])
local h = redis.call('HMGET', KEYS[1], 'status', 'lease', 'suspect', 'epoch', 'owner', 'start', 'question')
if not h[1] then return {'gone'} end
if h[1] ~= 'processing' then return {'ended'} end
local length = redis.call('LLEN', KEYS[2])
if h[5] == ARGV[2] then return {'taken', tonumber(h[4]), tonumber(h[6]), length, h[7]} end
if now < tonumber(h[2]) then return {'alive'} end
if not h[3] then
  redis.call('HSET', KEYS[1], 'suspect', stamp(now))
  return {'suspect'}
end
if now - tonumber(h[3]) < ARGV[3] / 3 + 1 then return {'suspect'} end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'lease', stamp(now + ARGV[3]))
redis.call('HDEL', KEYS[1], 'suspect')
return {'taken', epoch, tonumber(h[6]), length, h[7]}
