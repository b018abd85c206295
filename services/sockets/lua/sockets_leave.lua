-- Take closed sockets out. KEYS: 1 newest, 2 open, 3 renewed. ARGV: of each its name and token
for i = 1, #ARGV, 2 do
  local held = redis.call('HGET', KEYS[1], ARGV[i])
  if held and string.match(held, '%S+$') == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
  redis.call('HDEL', KEYS[2], ARGV[i + 1])
  redis.call('ZREM', KEYS[3], ARGV[i] .. ' ' .. ARGV[i + 1])
end
return 0
