-- Status of a stream, without its text. ARGV: now
-- Reply: {status, seconds since its lease ran out, 0 before} or false
local h = redis.call('HMGET', KEYS[1], 'status', 'lease')
if not h[1] then return false end
local late = math.max(0, clock(ARGV[1]) - tonumber(h[2] or '0'))
return {h[1], stamp(late)}
