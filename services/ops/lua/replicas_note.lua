-- Note a replica, and forget those whose note is over. KEYS: 1 replicas (hash)
-- ARGV: now, seconds that a note counts, name, record
-- Reply: per replica its name and record
local now, reply = clock(ARGV[1]), {}
redis.call('HSET', KEYS[1], ARGV[3], stamp(now) .. ' ' .. ARGV[4])
local notes = redis.call('HGETALL', KEYS[1])
for i = 1, #notes, 2 do
  local since, record = string.match(notes[i + 1], '^(%S+) (.*)$')
  if tonumber(since) < now - ARGV[2] then
    redis.call('HDEL', KEYS[1], notes[i])
  else
    reply[#reply + 1] = notes[i]
    reply[#reply + 1] = record
  end
end
redis.call('PEXPIRE', KEYS[1], 60000)
return reply
