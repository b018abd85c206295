-- Return a person's forms in a conversation. KEYS: 1 forms. ARGV: now, person, seconds a form is known after its answer
-- Reply: list of {form, opened, state, stream that claimed it or '', sealed}; state: open, claimed, done, expired
local now, found = clock(ARGV[1]), {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local opened, ends, person, stream, _, done, sealed =
    string.match(all[i + 1], '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (.*)$')
  local state = 'open'
  if done ~= '-' then state = 'done'
  elseif stream ~= '-' then state = 'claimed'
  elseif now >= tonumber(ends) then state = 'expired' end
  local over = state == 'done' and now > tonumber(done) + ARGV[3]
  if person == ARGV[2] and not over then
    found[#found + 1] = {all[i], opened, state, stream == '-' and '' or stream, sealed}
  end
end
return found
