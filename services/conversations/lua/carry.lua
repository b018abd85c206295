-- Copy a conversation from a former key, unless it was used under its own key since. The reset count is stored even if
-- it is 0: it marks the conversation as copied.
-- KEYS: 1 provider's conversation id, 2 reset count, 3 history. ARGV: seconds to live, id or '', reset count, then entries
-- Reply: {id or '', reset count}
if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) == 0 then
  local life = math.ceil(ARGV[1] * 1000)
  if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', life) end
  redis.call('SET', KEYS[2], ARGV[3], 'PX', life)
  for entry = 4, #ARGV do redis.call('RPUSH', KEYS[3], ARGV[entry]) end
  if #ARGV > 3 then redis.call('PEXPIRE', KEYS[3], life) end
end
return {redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '0'}
