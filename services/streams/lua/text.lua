-- A slice of the text, cut between two characters. ARGV: offset and limit in bytes; the limit is at least 4, one
-- character
-- Reply: {slice, offset after it, size of the whole text in bytes}
local offset, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local slice = redis.call('GETRANGE', KEYS[3], offset, offset + limit)
if #slice > limit then
  local cut = limit
  -- A continuation byte after the cut: the cut is inside a character.
  while cut > 0 and math.floor(string.byte(slice, cut + 1) / 64) == 2 do cut = cut - 1 end
  slice = string.sub(slice, 1, cut)
end
return {slice, offset + #slice, redis.call('STRLEN', KEYS[3])}
