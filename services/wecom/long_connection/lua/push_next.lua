-- Set when a chat's next push is due; a chat whose queue is empty is due no more.
-- KEYS: 1 due (sorted set), 2 queue of the chat (list). ARGV: now, chat, seconds from now
if redis.call('LLEN', KEYS[2]) == 0 then return redis.call('ZREM', KEYS[1], ARGV[2]) end
return redis.call('ZADD', KEYS[1], stamp(clock(ARGV[1]) + ARGV[3]), ARGV[2])
