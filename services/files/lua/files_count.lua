-- Count files in Redis, all of them or none; a file that is counted already is counted anew, one of 0 bytes no longer.
-- KEYS: 1 ends (sorted set: name -> end), 2 bytes (hash: "file:<name>" -> "<bytes> <caller>", and the sums "of:<caller>"
-- and "all")
-- ARGV: now, caller, seconds that they count, most bytes of the caller, most bytes of all, then names and bytes
-- Reply: {0 counted | 1 the caller has too many bytes | 2 all callers have, bytes of all}
local now, mine = clock(ARGV[1]), 'of:' .. ARGV[2]
-- A Redis that evicts keys may have lost one of the two.
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('DEL', KEYS[2]) end

local function forget(name)
  redis.call('ZREM', KEYS[1], name)
  local counted = redis.call('HGET', KEYS[2], 'file:' .. name)
  if not counted then return end
  redis.call('HDEL', KEYS[2], 'file:' .. name)
  local bytes, caller = string.match(counted, '^(%d+) (.*)$')
  for _, sum in ipairs({'of:' .. caller, 'all'}) do
    if redis.call('HINCRBY', KEYS[2], sum, -bytes) <= 0 then redis.call('HDEL', KEYS[2], sum) end
  end
end

local function bytes_of(sum)
  return tonumber(redis.call('HGET', KEYS[2], sum) or '0')
end

local wanted = 0
for i = 6, #ARGV, 2 do
  forget(ARGV[i])
  wanted = wanted + ARGV[i + 1]
end

local function full()
  if wanted == 0 then return 0 end
  if bytes_of(mine) + wanted > tonumber(ARGV[4]) then return 1 end
  return bytes_of('all') + wanted > tonumber(ARGV[5]) and 2 or 0
end

-- A bounded part of the files that are over, so that no call is long; more where they stand in the way.
repeat
  local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 500)
  for _, name in ipairs(over) do forget(name) end
until #over < 500 or full() == 0

local refused = full()
if refused == 0 and wanted > 0 then
  for i = 6, #ARGV, 2 do
    if tonumber(ARGV[i + 1]) > 0 then
      redis.call('ZADD', KEYS[1], stamp(now + ARGV[3]), ARGV[i])
      redis.call('HSET', KEYS[2], 'file:' .. ARGV[i], ARGV[i + 1] .. ' ' .. ARGV[2])
      for _, sum in ipairs({mine, 'all'}) do redis.call('HINCRBY', KEYS[2], sum, ARGV[i + 1]) end
    end
  end
  local ms = math.ceil(ARGV[3] * 1000)
  for _, key in ipairs(KEYS) do
    if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
  end
end
return {refused, bytes_of('all')}
