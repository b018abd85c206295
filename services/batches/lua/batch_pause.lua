-- Begin no items for a while, because the provider is busy. KEYS: 1 pause
-- ARGV: now, seconds the provider asks for, maximum of our own back-off in seconds, seconds after which
--       a provider that is still busy gets no pause any more, seconds the key lives beyond the pause
-- Reply: milliseconds until items may begin, 0 if the provider has been busy for too long
local now = clock(ARGV[1])
local asked, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'ends', 'since', 'rounds')
local ends, since, rounds = tonumber(known[1] or '0'), tonumber(known[2] or now), tonumber(known[3] or '0')
if now - since > tonumber(ARGV[4]) then return 0 end
-- Items that run together are one round. Our back-off doubles with each further round, however little the provider asks
-- for.
if ends <= now then
  rounds = rounds + 1
  asked = math.max(asked, math.min(most, 2 ^ (rounds - 1)))
end
ends = math.max(ends, now + asked)
redis.call('HSET', KEYS[1], 'ends', stamp(ends), 'since', stamp(since), 'rounds', rounds)
redis.call('PEXPIRE', KEYS[1], math.ceil((ends - now + ARGV[5]) * 1000))
return math.ceil((ends - now) * 1000)
