-- Note the facts of an answer that a rating needs, as its stream's hash has them now; return the note. Safe to run again.
-- KEYS: 1 stream hash, 2 the note, a hash that outlives the stream. ARGV: seconds the note lives
-- Reply: {1, status, access, asker, user_info, provider, message_id, conversation_id, mock, app}, the same with 0 first for
--        a stream whose question was not sent to a provider, or false
local names = {
  'status', 'access', 'asker', 'user_info', 'provider', 'message_id', 'conversation_id', 'mock', 'app',
}
local function reply(mark, fields, first)
  local made = {mark}
  for i = 1, #names do made[i + 1] = fields[first + i - 1] or '' end
  return made
end
local h = redis.call('HMGET', KEYS[1], 'asks', unpack(names))
if h[2] then
  if (h[1] or '0') == '0' or (h[4] or '') == '' then return reply(0, h, 2) end
  for i, name in ipairs(names) do redis.call('HSET', KEYS[2], name, h[i + 1] or '') end
end
local known = redis.call('HMGET', KEYS[2], unpack(names))
if not known[1] then return false end
redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[1] * 1000))
return reply(1, known, 1)
