-- Create a stream, or return the existing one.
-- ARGV: now, owner, lease, ttl, seconds to the producer's deadline, seconds to the frame's deadline ('' = no frame),
-- limit,
--       number of fields, fields and values, then chunks as in append.lua
-- Reply: {1 created | 0 existed, snapshot}
local now = clock(ARGV[1])
local created = 0
local owner = redis.call('HGET', KEYS[1], 'owner')
if not owner then
  local first = set_fields(9, tonumber(ARGV[8]))
  redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'lease', stamp(now + ARGV[3]), 'deadline', stamp(now + ARGV[5]))
  if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'frame_deadline', stamp(now + ARGV[6])) end
  redis.call('PEXPIRE', KEYS[1], math.floor(ARGV[4] * 1000))
  -- A Redis that evicts keys may have lost only the hash: the owner writes all of the stream again.
  redis.call('DEL', KEYS[2], KEYS[3])
  if #ARGV >= first then push(first, 0, 0, tonumber(redis.call('HGET', KEYS[1], 'start'))) end
  created = 1
elseif owner == ARGV[2] then
  created = 1
end
return {created, snapshot(now, tonumber(ARGV[7]))}
