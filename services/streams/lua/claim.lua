-- Look at the claim of an ended stream; give up one whose owner had `seconds` and left no outcome. ARGV: now, seconds
-- Reply: {''} no claim, {'waiting'}, {'lost', owner}, which only one caller gets
local claim = redis.call('HGET', KEYS[1], 'delivered') or ''
local since, owner = string.match(claim, '^claimed (%S+) %S+ (.+)$')
if not since then return {''} end
if clock(ARGV[1]) < tonumber(since) + ARGV[2] then return {'waiting'} end
redis.call('HSET', KEYS[1], 'delivered', 'lost')
return {'lost', owner}
