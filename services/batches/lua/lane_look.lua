-- State of the lanes. KEYS: 1 lanes by the end of their lease, 2 owners, 3 suspects, 4 workers
-- ARGV: now, lease, grace, seconds the keys live, number of lanes
-- Reply: {living workers, held lanes, lanes whose owner is silent but may still renew, 1 if owners may be unknown or 0,
--         free lanes ...}
local now = clock(ARGV[1])
-- Workers renew every third of a lease, so a Redis that lost its data knows all owners again after that. Until half of
-- a lease has passed, owners may be unknown.
redis.call('HSETNX', KEYS[3], 'since', stamp(now))
redis.call('PEXPIRE', KEYS[3], math.ceil(ARGV[4] * 1000))
local unsure = now < tonumber(redis.call('HGET', KEYS[3], 'since')) + ARGV[2] / 2
local ends, owned = {}, {}
local leases = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do ends[leases[i]] = tonumber(leases[i + 1]) end
for _, lane in ipairs(redis.call('HKEYS', KEYS[2])) do owned[lane] = true end
local reply = {redis.call('ZCOUNT', KEYS[4], stamp(now - ARGV[2]), '+inf'), 0, 0, unsure and 1 or 0}
for number = 0, tonumber(ARGV[5]) - 1 do
  local lane = tostring(number)
  if not owned[lane] then
    reply[#reply + 1] = number
  elseif now < (ends[lane] or 0) then
    reply[2] = reply[2] + 1
  else
    redis.call('HSETNX', KEYS[3], lane, stamp(now))
    if now < tonumber(redis.call('HGET', KEYS[3], lane)) + ARGV[3] then
      reply[3] = reply[3] + 1
    else
      reply[#reply + 1] = number
    end
  end
end
return reply
