-- Take a person's rating of an answer unless a later one is known, and queue the answer for delivery.
-- KEYS: 1 the answer's ratings (hash), 2 queue (sorted set of stream ids by the time they are due)
-- ARGV: now, stream id, person, time of the event in whole seconds (0 = now), event id or '', sealed rating,
--       seconds to live, most answers in the queue, most people of an answer
-- Reply: 'taken', 'known' (the event came before), 'stale' (a later one came before), 'full'
local EVENTS = 16
local now, at, person, event = clock(ARGV[1]), tonumber(ARGV[4]), ARGV[3], ARGV[5]
-- An event of the future would win for ever.
if at <= 0 or at > now + 600 then at = math.floor(now) end
local h = redis.call('HMGET', KEYS[1], 'a:' .. person, 'e:' .. person, 'people')
local events = {}
for known in string.gmatch(h[2] or '', '%S+') do
  if known == event then return 'known' end
  events[#events + 1] = known
end
if h[1] and at < tonumber(string.match(h[1], '^%d+')) then return 'stale' end
if not redis.call('ZSCORE', KEYS[2], ARGV[2]) and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[8]) then
  return 'full'
end
if not h[1] then
  if tonumber(h[3] or '0') >= tonumber(ARGV[9]) then return 'full' end
  redis.call('HINCRBY', KEYS[1], 'people', 1)
end
if event ~= '' then events[#events + 1] = event end
local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
redis.call('HSET', KEYS[1], 'a:' .. person, string.format('%d %d', at, seq), 'r:' .. person, ARGV[6],
           'e:' .. person, table.concat(events, ' ', math.max(1, #events - EVENTS + 1)))
if redis.call('ZADD', KEYS[2], 'NX', stamp(now), ARGV[2]) == 1 then
  redis.call('HSET', KEYS[1], 'since', stamp(now), 'tries', '0')
end
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[7] * 1000))
return 'taken'
