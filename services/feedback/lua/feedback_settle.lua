-- Store how far an answer's ratings were delivered; take it off the queue, or let it be due again.
-- KEYS: 1 the answer's ratings, 2 queue
-- ARGV: now, stream id, sequence number of the ratings that were delivered (0 = could not be read), '1' if SQL has them, '1' if the provider has
--       them, seconds until the next attempt
-- Reply: 1 delivered, 0 still queued
local now, done = clock(ARGV[1]), tonumber(ARGV[3])
local h = redis.call('HMGET', KEYS[1], 'seq', 'saved', 'sent')
if not h[1] then
  redis.call('ZREM', KEYS[2], ARGV[2])
  return 1
end
local seq, saved, sent = tonumber(h[1]), tonumber(h[2] or '0'), tonumber(h[3] or '0')
if ARGV[4] == '1' then saved = math.max(saved, done) end
-- Another worker sent later ratings while this one was slow: the provider may have the earlier ones. Send them again.
local overtaken = ARGV[5] == '1' and sent > done
if overtaken then sent = 0 elseif ARGV[5] == '1' then sent = done end
redis.call('HSET', KEYS[1], 'saved', saved, 'sent', sent)
if saved >= seq and sent >= seq then
  redis.call('ZREM', KEYS[2], ARGV[2])
  return 1
end
local changed = overtaken or (done > 0 and seq > done)
if not changed then redis.call('HINCRBY', KEYS[1], 'tries', 1) end
redis.call('ZADD', KEYS[2], stamp(changed and now or now + ARGV[6]), ARGV[2])
return 0
