-- Queue a push, unless its id is known or the queue is full.
-- KEYS: 1 push (hash), 2 waiting (sorted set: id by the end of its time), 3 sizes of waiting files (hash by id),
--       4 due (sorted set: chat by the time of its next push), 5 queue of the chat (list of ids)
-- ARGV: now, id, chat, bytes of the file, most pushes, most bytes, seconds in the queue, seconds kept, fields and values
-- Reply: 'added', 'full', or 'known'
if redis.call('EXISTS', KEYS[1]) == 1 then return 'known' end
local now, bytes, kept = clock(ARGV[1]), tonumber(ARGV[4]), math.ceil(ARGV[8] * 1000)
for _, size in ipairs(redis.call('HVALS', KEYS[3])) do bytes = bytes + size end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) or bytes > tonumber(ARGV[6]) then return 'full' end
local expires = stamp(now + ARGV[7])
redis.call('HSET', KEYS[1], 'state', 'queued', 'chat', ARGV[3], 'created', stamp(now), 'expires', expires)
set_fields(9, (#ARGV - 8) / 2)
redis.call('ZADD', KEYS[2], expires, ARGV[2])
if ARGV[4] ~= '0' then redis.call('HSET', KEYS[3], ARGV[2], ARGV[4]) end
redis.call('ZADD', KEYS[4], 'NX', stamp(now), ARGV[3])
redis.call('RPUSH', KEYS[5], ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, kept) end
return 'added'
