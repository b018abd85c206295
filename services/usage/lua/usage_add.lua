-- Queue an ended stream for the log and the usage; one that is queued again is counted once all the same.
-- KEYS: 1 queue (sorted set of "<stream id> <end>" by the time they are due), 2 number of streams that found no room
-- ARGV: now, stream id, most streams in the queue, seconds that the keys live without another stream
-- Reply: 1 queued, 0 full
local now = clock(ARGV[1])
local room = redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[3])
if room then
  redis.call('ZADD', KEYS[1], stamp(now), ARGV[2] .. ' ' .. stamp(now))
else
  redis.call('INCR', KEYS[2])
end
redis.call('PEXPIRE', room and KEYS[1] or KEYS[2], math.ceil(ARGV[4] * 1000))
return room and 1 or 0
