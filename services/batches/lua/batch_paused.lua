-- State of the pause. KEYS: 1 pause. ARGV: now
-- Reply: {milliseconds until its end, negative after it, 1 if the key exists or 0}
local ends = redis.call('HGET', KEYS[1], 'ends')
if not ends then return {0, 0} end
return {math.ceil((tonumber(ends) - clock(ARGV[1])) * 1000), 1}
