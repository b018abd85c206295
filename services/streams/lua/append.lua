-- Append chunks, renew the lease, and possibly end the stream, in one step. Safe to run again.
-- ARGV: now, epoch, owner, lease, start, index, op ('' | finish | release), number of fields, fields and values,
--       then per chunk its JSON and its text ('' for an error chunk)
-- Reply: {'ok', length} {'gap', length} {'refused', epoch, owner} {'closed', status} {'gone'}
local h = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'status', 'start', 'suspect')
if not h[1] then return {'gone'} end
if h[1] ~= ARGV[2] or h[2] ~= ARGV[3] then return {'refused', h[1], h[2]} end
local fields, index = tonumber(ARGV[8]), tonumber(ARGV[6])
local first = 9 + 2 * fields
local length = redis.call('LLEN', KEYS[2])
if h[3] ~= 'processing' then
  -- A finish is sent again when its reply was lost: all chunks are there.
  if ARGV[7] == 'finish' and length == index + (#ARGV - first + 1) / 2 then return {'ok', length} end
  return {'closed', h[3]}
end
-- A Redis that evicts keys may have lost only the text: request its chunks again.
local text_start = tonumber(h[4])
if length > text_start and redis.call('EXISTS', KEYS[3]) == 0 then
  length = text_start
  if length == 0 then redis.call('DEL', KEYS[2]) else redis.call('LTRIM', KEYS[2], 0, length - 1) end
end
if index > length then return {'gap', length} end
local start = tonumber(ARGV[5])
if start > text_start then
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[1], 'start', start)
end
length = push(first, index, length, start)
set_fields(9, fields)
if h[5] then redis.call('HDEL', KEYS[1], 'suspect') end
if ARGV[7] == 'release' then
  redis.call('HSET', KEYS[1], 'lease', '0', 'suspect', '0')
elseif ARGV[7] == '' then
  redis.call('HSET', KEYS[1], 'lease', stamp(clock(ARGV[1]) + ARGV[4]))
end
return {'ok', length}
