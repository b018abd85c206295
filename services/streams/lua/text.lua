-- A slice of the text, cut between two characters. ARGV: offset, limit: bytes, of which one character has four
-- Reply: {slice, the offset after it, bytes of the whole text}
local offset, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local slice = redis.call('GETRANGE', KEYS[3], offset, offset + limit)
if #slice > limit then
  local cut = limit
  -- The byte after the cut goes on with a character that began before it.
  while cut > 0 and math.floor(string.byte(slice, cut + 1) / 64) == 2 do cut = cut - 1 end
  slice = string.sub(slice, 1, cut)
end
return {slice, offset + #slice, redis.call('STRLEN', KEYS[3])}
