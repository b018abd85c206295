-- Claim the first push of a chat's queue, before its message leaves; drop it from the queue if it cannot be sent.
-- KEYS: 1 push (hash), 2 queue of the chat (list), 3 sending (sorted set: id by the time of its claim), 4 lease (hash)
-- ARGV: now, id, fence of the caller, claim
-- Reply: 'claimed'; 'dropped': it expired or is gone; 'refused': the caller does not hold the lease, or another claimed it
if redis.call('HGET', KEYS[4], 'fence') ~= ARGV[3] then return 'refused' end
local now = clock(ARGV[1])
local h = redis.call('HMGET', KEYS[1], 'state', 'expires', 'claim')
if h[1] == 'sending' and h[3] == ARGV[4] then return 'claimed' end
if redis.call('LINDEX', KEYS[2], 0) ~= ARGV[2] then return 'refused' end
redis.call('LPOP', KEYS[2])
if h[1] ~= 'queued' or now >= tonumber(h[2]) then return 'dropped' end
redis.call('HSET', KEYS[1], 'state', 'sending', 'claim', ARGV[4], 'claimed', stamp(now))
redis.call('ZADD', KEYS[3], stamp(now), ARGV[2])
redis.call('PEXPIRE', KEYS[3], redis.call('PTTL', KEYS[1]))
return 'claimed'
