-- Mark a lapsed stream, or take it over once the mark is old enough (docs/architecture.md, "Takeover").
-- ARGV: now, new owner, lease, newest schema version that the caller can continue
-- Reply: {'taken', epoch, former owner, 'takeover' | 'handover', takeovers so far, seconds to the producer's deadline}
--        {'suspect'} {'alive'} {'ended'} {'gone'}
--        {'newer'}: a stream of a newer version, which only that version takes over until the deadline
local now = clock(ARGV[1])
local h = redis.call('HMGET', KEYS[1], 'status', 'lease', 'suspect', 'epoch', 'owner', 'deadline', 'v',
                     'former_owner', 'taken', 'takeovers', 'start')
if not h[1] then return {'gone'} end
if h[1] ~= 'processing' then return {'ended'} end
local left = tonumber(h[6]) - now
-- Taken before by the same caller, which did not get the reply.
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
-- If Redis lost the end of the list, and with it the beginning of a replacement, the text begins after the rest.
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
