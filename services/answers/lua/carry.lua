-- Store what a conversation has under a former key, unless its present key was used meanwhile. The reset count is
-- stored even if it is 0: its key marks the conversation as carried over.
-- KEYS: 1 the id, 2 how often it was reset, 3 the turns. ARGV: seconds, the id or '', the resets, then turns
-- Reply: {the id or '', the resets}
if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) == 0 then
  local life = math.ceil(ARGV[1] * 1000)
  if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', life) end
  redis.call('SET', KEYS[2], ARGV[3], 'PX', life)
  for turn = 4, #ARGV do redis.call('RPUSH', KEYS[3], ARGV[turn]) end
  if #ARGV > 3 then redis.call('PEXPIRE', KEYS[3], life) end
end
return {redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[2]) or '0'}
