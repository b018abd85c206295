-- Keep a form that waits for a person's answer. A form that is kept already gets its new words, and stays claimed.
-- KEYS: 1 forms (hash). ARGV: now, form, person, sealed form, seconds it can be answered, seconds it is kept after that,
--       number of forms kept
-- Value: '<opened> <expires> <person> <stream> <claim> <done> <sealed>'; '-' for none
-- Reply: 1 new, 0 kept before
local now = clock(ARGV[1])
local expires, kept = now + ARGV[5], redis.call('HGET', KEYS[1], ARGV[2])
local claim = '- - -'
if kept then claim = string.match(kept, '^%S+ %S+ %S+ (%S+ %S+ %S+) ') end
local value = stamp(now) .. ' ' .. stamp(expires) .. ' ' .. ARGV[3] .. ' ' .. claim .. ' ' .. ARGV[4]
redis.call('HSET', KEYS[1], ARGV[2], value)
local known, last, oldest, since = 0, expires, nil, nil
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local opened, ends = string.match(all[i + 1], '^(%S+) (%S+) ')
  if tonumber(ends) + ARGV[6] < now then
    redis.call('HDEL', KEYS[1], all[i])
  else
    known = known + 1
    last = math.max(last, tonumber(ends))
    if all[i] ~= ARGV[2] and (not since or tonumber(opened) < since) then oldest, since = all[i], tonumber(opened) end
  end
end
if known > tonumber(ARGV[7]) and oldest then redis.call('HDEL', KEYS[1], oldest) end
redis.call('PEXPIRE', KEYS[1], math.ceil((last - now + ARGV[6]) * 1000))
return kept and 0 or 1
