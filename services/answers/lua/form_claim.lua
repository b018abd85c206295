-- Claim a form for the question that answers it: only the claim's caller may submit the form.
-- KEYS: 1 forms. ARGV: now, form, stream id of the question, a random name of this attempt
-- Reply: 'claimed' (by this attempt), 'before' (by an earlier attempt of this question), 'taken', 'expired', 'gone'
local kept = redis.call('HGET', KEYS[1], ARGV[2])
if not kept then return 'gone' end
local opened, ends, person, stream, claim, done, sealed =
  string.match(kept, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.*)$')
if stream ~= '-' then
  if stream ~= ARGV[3] then return 'taken' end
  return claim == ARGV[4] and 'claimed' or 'before'
end
if clock(ARGV[1]) >= tonumber(ends) then return 'expired' end
local value = opened .. ' ' .. ends .. ' ' .. person .. ' ' .. ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. done .. ' ' .. sealed
redis.call('HSET', KEYS[1], ARGV[2], value)
return 'claimed'
