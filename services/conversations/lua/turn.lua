-- Join a conversation's queue. KEYS: 1 queue, a list of stream ids, 2 provider's conversation id, 3 reset count, 4 forms
-- ARGV: stream id, length limit of the queue, seconds the queue lives from now, seconds the id lives from now
-- Reply: {position: 0 = its turn, -1 = full, 1 if it was added now, head of the queue, id or '', reset count, 1 if
-- neither id nor reset count was ever stored, 1 if forms are stored}
local ids = redis.call('LRANGE', KEYS[1], 0, -1)
local known = redis.call('MGET', KEYS[2], KEYS[3])
if known[1] then redis.call('PEXPIRE', KEYS[2], math.ceil(ARGV[4] * 1000)) end
local function standing(position, entered)
  local unused = (known[1] or known[2]) and 0 or 1
  local forms = redis.call('EXISTS', KEYS[4])
  return {position, entered, ids[1] or ARGV[1], known[1] or '', known[2] or '0', unused, forms}
end
for position, id in ipairs(ids) do
  if id == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] * 1000))
    return standing(position - 1, 0)
  end
end
if #ids >= tonumber(ARGV[2]) then return standing(-1, 0) end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] * 1000))
return standing(#ids, 1)
