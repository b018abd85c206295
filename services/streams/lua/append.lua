-- Append chunks, renew the lease, and possibly end the stream, in one step. Safe to run again.
-- ARGV: now, epoch, owner, lease, start, index, op ('' | finish | release), number of fields, fields and values,
--       then per chunk its JSON and its text ('' for an error chunk)
-- Reply: {'ok', length} {'ok', length, cause, shown} {'gap', length} {'refused', epoch, owner} {'closed', status} {'gone'}
-- The second one tells this owner, and no other, to send a late message. The claim in `delivered` is written in the step
-- that ends the stream: 'claimed <time> <cause> <owner>'. Causes: 'overflow' (the text is larger than a frame), 'frame'
-- (the frame ended before the answer, and shows `shown`), 'unread' (its deadline passed, and no poll came after it).

-- Bytes of text that a poll reads, READ_BYTES in store.py.
local READ_BYTES = 20484

-- Return cause and text of a frame that ended before the answer that ends now; '' where there is no reply address.
local function ended_frame(now)
  local f = redis.call('HMGET', KEYS[1], 'reply', 'frame_deadline', 'shown')
  if not f[1] or f[1] == '' then return '', '' end
  if f[3] then return 'frame', f[3] end
  if not f[2] or now < tonumber(f[2]) then return '', '' end
  -- A later poll repeats what the last one may have shown, as if it had come in time.
  redis.call('HSET', KEYS[1], 'shown', redis.call('GETRANGE', KEYS[3], 0, READ_BYTES - 1))
  return 'unread', ''
end

-- Return the reply to the owner's finish that was sent again.
local function finished_before(length)
  local f = redis.call('HMGET', KEYS[1], 'delivered', 'shown')
  local cause = string.match(f[1] or '', '^claimed %S+ (%S+) ')
  if not cause then return {'ok', length} end
  return {'ok', length, cause, cause == 'frame' and f[2] or ''}
end

local h = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'status', 'start', 'suspect')
if not h[1] then return {'gone'} end
if h[1] ~= ARGV[2] or h[2] ~= ARGV[3] then return {'refused', h[1], h[2]} end
local fields, index = tonumber(ARGV[8]), tonumber(ARGV[6])
local first = 9 + 2 * fields
local length = redis.call('LLEN', KEYS[2])
if h[3] ~= 'processing' then
  -- A finish is sent again when its reply was lost: all chunks are there.
  if ARGV[7] == 'finish' and length == index + (#ARGV - first + 1) / 2 then
    return finished_before(length)
  end
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
local cause, shown = '', ''
if ARGV[7] == 'finish' then cause, shown = ended_frame(clock(ARGV[1])) end
length = push(first, index, length, start)
set_fields(9, fields)
if h[5] then redis.call('HDEL', KEYS[1], 'suspect') end
if ARGV[7] == 'release' then
  redis.call('HSET', KEYS[1], 'lease', '0', 'suspect', '0')
elseif ARGV[7] == '' then
  redis.call('HSET', KEYS[1], 'lease', stamp(clock(ARGV[1]) + ARGV[4]))
end
if ARGV[7] == 'finish' then
  if cause == '' and redis.call('HGET', KEYS[1], 'delivered') == 'due' then cause = 'overflow' end
  if cause ~= '' then
    local claim = 'claimed ' .. stamp(clock(ARGV[1])) .. ' ' .. cause .. ' ' .. ARGV[3]
    redis.call('HSET', KEYS[1], 'delivered', claim)
    return {'ok', length, cause, shown}
  end
end
return {'ok', length}
