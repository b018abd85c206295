-- Have no more items begun for a while. KEYS: 1 the pause
-- ARGV: now, seconds the provider asks for, the longest of our own waits, seconds after which nothing is waited for,
--       seconds the key lives beyond the pause
-- Reply: milliseconds until items may be begun, 0 where the provider has been busy for too long
local now = clock(ARGV[1])
local asked, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local known = redis.call('HMGET', KEYS[1], 'ends', 'since', 'rounds')
local ends, since, rounds = tonumber(known[1] or '0'), tonumber(known[2] or now), tonumber(known[3] or '0')
if now - since > tonumber(ARGV[4]) then return 0 end
-- The items that were under way together are one round. Each further one waits longer, whatever little is asked for.
if ends <= now then
  rounds = rounds + 1
  asked = math.max(asked, math.min(most, 2 ^ (rounds - 1)))
end
ends = math.max(ends, now + asked)
redis.call('HSET', KEYS[1], 'ends', stamp(ends), 'since', stamp(since), 'rounds', rounds)
redis.call('PEXPIRE', KEYS[1], math.ceil((ends - now + ARGV[5]) * 1000))
return math.ceil((ends - now) * 1000)
