-- Return the chunks from a cursor on. ARGV: now, cursor, limit of chunks, limit of bytes
-- Reply: {status, error_code, start, length, chunks, access, epoch, lapsed, waiting, owner, step} or false
local h = redis.call('HMGET', KEYS[1], 'status', 'error_code', 'start', 'read', 'access', 'epoch', 'lease', 'waiting',
                     'owner', 'step')
if not h[1] then return false end
local length, cursor = redis.call('LLEN', KEYS[2]), tonumber(ARGV[2])
local count, room = math.min(tonumber(ARGV[3]), length - cursor), tonumber(ARGV[4])
local chunks = {}
-- Read 16 chunks at a time, because chunks beyond the byte limit are read in vain.
while #chunks < count and room > 0 do
  local first = cursor + #chunks
  for _, chunk in ipairs(redis.call('LRANGE', KEYS[2], first, first + math.min(16, count - #chunks) - 1)) do
    -- The first chunk is always returned, or a reader could not proceed.
    if #chunks > 0 and #chunk > room then
      room = 0
      break
    end
    chunks[#chunks + 1] = chunk
    room = room - #chunk
  end
end
-- Errors are ignored: a Redis that accepts no writes is still read.
if #chunks > 0 and cursor + #chunks > tonumber(h[4] or '0') then
  redis.pcall('HSET', KEYS[1], 'read', cursor + #chunks)
end
local lapsed = 0
if h[1] == 'processing' and clock(ARGV[1]) >= tonumber(h[7] or '0') then lapsed = 1 end
local step = ''
if h[1] == 'processing' and length == tonumber(h[3]) then step = h[10] or '' end
return {h[1], h[2] or '', tonumber(h[3]), length, chunks, h[5] or '', tonumber(h[6]), lapsed, h[8] or '', h[9] or '',
        step}
