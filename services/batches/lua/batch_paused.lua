-- How the pause stands. KEYS: 1 the pause; ARGV: now
-- Reply: {milliseconds to its end, below 0 where that is past, 1 where there is a pause or was one until now or 0}
local ends = redis.call('HGET', KEYS[1], 'ends')
if not ends then return {0, 0} end
return {math.ceil((tonumber(ends) - clock(ARGV[1])) * 1000), 1}
