-- Store a slice of a file, and with the last slice its description, while the caller owns the unfinished stream.
-- Without slice and description remove the file.
-- KEYS: 1 hash of the stream, 2 descriptions (hash: entry -> JSON), 3 content (base64)
-- ARGV: epoch, owner, entry, offset in characters, slice, description ('' until the last slice),
-- characters of all slices
-- Reply: 1 stored, 0 the caller does not own the stream, or the stream has ended
local h = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'status')
if h[1] ~= ARGV[1] or h[2] ~= ARGV[2] or h[3] ~= 'processing' then return 0 end
local left = redis.call('PTTL', KEYS[1])
if ARGV[5] ~= '' then
  local offset = tonumber(ARGV[4])
  if offset == 0 then
    -- An earlier owner may have left a longer or another content. A new string gets the memory it needs; one that grows
    -- gets up to a megabyte more with each slice, and keeps it.
    redis.call('DEL', KEYS[3])
    redis.call('SETRANGE', KEYS[3], ARGV[7] - 1, '=')
  end
  redis.call('SETRANGE', KEYS[3], offset, ARGV[5])
  redis.call('PEXPIRE', KEYS[3], left)
end
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[6])
  redis.call('PEXPIRE', KEYS[2], left)
end
if ARGV[5] == '' and ARGV[6] == '' then
  redis.call('HDEL', KEYS[2], ARGV[3])
  redis.call('DEL', KEYS[3])
end
return 1
