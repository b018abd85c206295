-- Renew open sockets. KEYS: 1 newest, 2 open, 3 renewed, 4 dismissed
-- ARGV: now, seconds a socket counts without renewal, then per socket its name, token, time that orders it, record
-- Reply: {now, then per socket that must close its token and the reason}
local now = clock(ARGV[1])
local reply = {stamp(now)}
local any_dismissed = redis.call('EXISTS', KEYS[4]) == 1

local function forget(member)
  local name, token = string.match(member, '^(%S+) (%S+)$')
  local held = redis.call('HGET', KEYS[1], name)
  if held and string.match(held, '%S+$') == token then redis.call('HDEL', KEYS[1], name) end
  redis.call('HDEL', KEYS[2], token)
  redis.call('ZREM', KEYS[3], member)
end

-- Compare with the newest socket of the name. If Redis has none, this one becomes the newest again.
local function superseded(name, token, since)
  local held = redis.call('HGET', KEYS[1], name)
  local its_since, its_token = string.match(held or '', '^(%S+) (%S+)$')
  if its_token == token then return false end
  if held and (tonumber(its_since) > tonumber(since) or (its_since == since and its_token > token)) then
    return true
  end
  redis.call('HSET', KEYS[1], name, since .. ' ' .. token)
  return false
end

local dead = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', '(' .. stamp(now - ARGV[2]), 'LIMIT', 0, 100)
for _, member in ipairs(dead) do forget(member) end
for i = 3, #ARGV, 4 do
  local name, token, since, record = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local why = nil
  if any_dismissed and redis.call('SISMEMBER', KEYS[4], token) == 1 then
    why = 'dismissed'
  elseif superseded(name, token, since) then
    why = 'superseded'
  end
  if why then
    forget(name .. ' ' .. token)
    reply[#reply + 1] = token
    reply[#reply + 1] = why
  else
    redis.call('HSET', KEYS[2], token, record)
    redis.call('ZADD', KEYS[3], stamp(now), name .. ' ' .. token)
  end
end
for k = 1, 3 do redis.call('PEXPIRE', KEYS[k], math.ceil(ARGV[2] * 1000)) end
return reply
