-- Store the outcome of a push, or put it back at the head of its chat's queue.
-- KEYS: 1 push (hash), 2 waiting (sorted set), 3 sizes (hash), 4 sending (sorted set), 5 queue of the chat (list),
--       6 ended (list of ids)
-- ARGV: now, id, the state that it must have, its claim ('' for any), the new state, error, most ended ids
-- Reply: 1 stored, 0 not: it has another state or claim. A final state never changes.
local h = redis.call('HMGET', KEYS[1], 'state', 'claim')
if h[1] ~= ARGV[3] or (ARGV[4] ~= '' and h[2] ~= ARGV[4]) then
  if not h[1] then
    redis.call('ZREM', KEYS[2], ARGV[2])
    redis.call('HDEL', KEYS[3], ARGV[2])
  end
  if h[1] ~= 'sending' then redis.call('ZREM', KEYS[4], ARGV[2]) end
  return 0
end
redis.call('ZREM', KEYS[4], ARGV[2])
redis.call('HSET', KEYS[1], 'state', ARGV[5])
if ARGV[5] == 'queued' then
  redis.call('LPUSH', KEYS[5], ARGV[2])
  redis.call('PEXPIRE', KEYS[5], redis.call('PTTL', KEYS[1]))
  return 1
end
redis.call('HSET', KEYS[1], 'error', ARGV[6], 'ended', stamp(clock(ARGV[1])))
redis.call('HDEL', KEYS[1], 'payload', 'claim')
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('HDEL', KEYS[3], ARGV[2])
redis.call('LPUSH', KEYS[6], ARGV[2])
redis.call('LTRIM', KEYS[6], 0, ARGV[7] - 1)
redis.call('PEXPIRE', KEYS[6], redis.call('PTTL', KEYS[1]))
return 1
