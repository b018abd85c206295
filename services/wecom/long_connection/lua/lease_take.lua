-- Take a bot's lease if it is free, and return its fence; 0 if it is not free.
-- KEYS: 1 lease. ARGV: now, token, seconds, the greatest fence that the caller knows, seconds after an eviction (0: never)
local now, seconds, retry = clock(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[5])
local h = redis.call('HMGET', KEYS[1], 'fence', 'expires', 'leaving', 'evicted', 'connecting', 'paused')
local expires = tonumber(h[2] or '0')
if h[4] and h[4] ~= '' and (retry == 0 or now < expires + retry) then return 0 end
-- An end that lies further ahead than any renewal puts it is from before Redis's clock was set back.
if now < expires and expires <= now + 2 * seconds and h[3] ~= '1' then return 0 end
-- Milliseconds: a Redis that lost the hash gives no fence again.
local fence = math.max(tonumber(h[1] or '0') + 1, tonumber(ARGV[4]) + 1, math.floor(now * 1000))
redis.call('HSET', KEYS[1], 'holder', ARGV[2], 'fence', string.format('%.0f', fence), 'expires', stamp(now + seconds),
           'leaving', '', 'subscribed', '', 'evicted', '', 'looked', '', 'connecting', '',
           'paused', h[5] == '1' and stamp(now) or h[6] or '')
return fence
