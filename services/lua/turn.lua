-- Stand in a conversation's line. KEYS: 1 the line, a list of stream ids
-- ARGV: stream id, how many may stand in it, seconds the line lives from now
-- Reply: {place: 0 = its turn, -1 = full, 1 when it was put there now, the head}
local ids = redis.call('LRANGE', KEYS[1], 0, -1)
for place, id in ipairs(ids) do
  if id == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] * 1000))
    return {place - 1, 0, ids[1]}
  end
end
if #ids >= tonumber(ARGV[2]) then return {-1, 0, ids[1]} end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[3] * 1000))
return {#ids, 1, ids[1] or ARGV[1]}
