-- Count ended answers, and read the counts of the last minutes with the faults that were found.
-- KEYS: 1 ended answers, 2 faults (hashes). ARGV: now, answers that ended, those of them that failed, minutes
-- Reply: {ended, failed, a fault, the start of its occurrence, …}
local minute = math.floor(clock(ARGV[1]) / 60)
if tonumber(ARGV[2]) > 0 then
  redis.call('HINCRBY', KEYS[1], minute .. ':ended', ARGV[2])
  redis.call('HINCRBY', KEYS[1], minute .. ':failed', ARGV[3])
  redis.call('PEXPIRE', KEYS[1], (ARGV[4] + 1) * 60000)
end
local sums, counts = {ended = 0, failed = 0}, redis.call('HGETALL', KEYS[1])
for i = 1, #counts, 2 do
  local at, kind = string.match(counts[i], '^(%d+):(%a+)$')
  if tonumber(at) <= minute - ARGV[4] then
    redis.call('HDEL', KEYS[1], counts[i])
  else
    sums[kind] = sums[kind] + counts[i + 1]
  end
end
return {sums.ended, sums.failed, unpack(redis.call('HGETALL', KEYS[2]))}
