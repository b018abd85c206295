-- Mark a lapsed stream, or take it over once the mark is old enough (docs/architecture.md, "Takeover").
-- ARGV: now, the new owner, lease, the newest schema version the caller can go on with
-- Reply: {'taken', epoch, former owner, 'takeover' | 'handover', takeovers so far, seconds to the producer's end}
--        {'suspect'} {'alive'} {'ended'} {'gone'} {'newer'}: one of a newer version is left to its own, while it has time
local now = clock(ARGV[1])
local h = redis.call('HMGET', KEYS[1], 'status', 'lease', 'suspect', 'epoch', 'owner', 'deadline', 'v',
                     'former_owner', 'taken', 'takeovers', 'start')
if not h[1] then return {'gone'} end
if h[1] ~= 'processing' then return {'ended'} end
local left = tonumber(h[6]) - now
-- Taken already: the reply to it was lost.
if h[5] == ARGV[2] then return {'taken', tonumber(h[4]), h[8], h[9], tonumber(h[10]), stamp(left)} end
if now < tonumber(h[2]) then return {'alive'} end
if left > 0 and tonumber(h[7] or '1') > tonumber(ARGV[4]) then return {'newer'} end
if not h[3] then
  redis.call('HSET', KEYS[1], 'suspect', stamp(now))
  return {'suspect'}
end
if now - tonumber(h[3]) < ARGV[3] / 3 + 1 then return {'suspect'} end
local kind, takeovers = 'takeover', tonumber(h[10] or '0')
if tonumber(h[2]) == 0 then kind = 'handover' else takeovers = takeovers + 1 end
-- Where Redis lost the list's end, a replacement's beginning with it, the text begins at what is left.
local length = redis.call('LLEN', KEYS[2])
if tonumber(h[11]) > length then
  redis.call('HSET', KEYS[1], 'start', length)
  redis.call('DEL', KEYS[3])
end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'lease', stamp(now + ARGV[3]), 'former_owner', h[5], 'taken', kind,
           'takeovers', takeovers)
redis.call('HDEL', KEYS[1], 'suspect')
return {'taken', epoch, h[5], kind, takeovers, stamp(left)}
