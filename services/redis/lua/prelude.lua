-- Prepended to every script. KEYS of a stream: 1 hash, 2 messages, 3 text.

-- Seconds since 1970 by Redis's clock, unless the caller passes its own time.
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

local function stamp(seconds)
  return string.format('%.3f', seconds)
end

-- Set the `count` field/value pairs that begin at ARGV[first]; return the index after them. A stream has some thirty
-- fields.
local function set_fields(first, count)
  if count > 0 then redis.call('HSET', KEYS[1], unpack(ARGV, first, first + 2 * count - 1)) end
  return first + 2 * count
end

-- Let a key expire together with the stream's hash.
local function live_as_long(key)
  redis.call('PEXPIRE', key, redis.call('PTTL', KEYS[1]))
end

-- Push those chunks (ARGV pairs of JSON and text) that are missing. `index` is the list index of the first one.
local function push(first, index, length, start)
  -- A Redis that evicts keys may have lost only the list: the text begins again with it.
  if length == 0 and redis.call('EXISTS', KEYS[3]) == 1 then redis.call('DEL', KEYS[3]) end
  for i = first, #ARGV, 2 do
    if index >= length then
      length = redis.call('RPUSH', KEYS[2], ARGV[i])
      if length == 1 then live_as_long(KEYS[2]) end
      if index >= start and ARGV[i + 1] ~= '' then
        -- Equal lengths: the text key did not exist before.
        if redis.call('APPEND', KEYS[3], ARGV[i + 1]) == #ARGV[i + 1] then live_as_long(KEYS[3]) end
      end
    end
    index = index + 1
  end
  return length
end

-- A reader's view of the stream, in the order of `Snapshot` in records.py, with at most `limit` bytes of text. `over` is
-- 1 for a frame that is over, 2 more for an answer with a reply address, and 4 more for one with pictures or files:
-- members of their own would be more bytes. The last members are there only where they are not empty: the running step
-- until a text can be seen (one that begins with "<" may be hidden thinking), the suggested questions of an ended
-- answer, or the own sentence of a refused one; the choices of the form that an ended answer asks.
local function snapshot(now, limit)
  local h = redis.call('HMGET', KEYS[1], 'status', 'error_code', 'waiting', 'access', 'epoch', 'owner', 'lease', 'read',
                       'frame_deadline', 'shown', 'start', 'cited', 'late', 'files', 'step', 'suggested',
                       'choices', 'refusal')
  if not h[1] then return false end
  local length = redis.call('LLEN', KEYS[2])
  local text, over = h[10], 1
  if not text then
    text, over = redis.call('GETRANGE', KEYS[3], 0, limit - 1), 0
    if h[1] == 'processing' and h[9] and now >= tonumber(h[9]) then
      redis.pcall('HSET', KEYS[1], 'shown', text)
      over = 1
    end
  end
  -- Errors are ignored: a Redis that accepts no writes is still read.
  if length > tonumber(h[8] or '0') then redis.pcall('HSET', KEYS[1], 'read', length) end
  local lapsed = 0
  if h[1] == 'processing' and now >= tonumber(h[7] or '0') then lapsed = 1 end
  if h[13] == '1' then over = over + 2 end
  if h[14] == '1' then over = over + 4 end
  local size = (h[10] or #text >= limit) and redis.call('STRLEN', KEYS[3]) or #text
  local note, choices = h[1] == 'error' and h[18] or h[16] or '', h[1] ~= 'processing' and h[17] or ''
  if h[1] == 'processing' then note = string.find(text, '^%s*[^%s<]') and '' or h[15] or '' end
  return {h[1], h[2] or '', h[3] or '', h[4] or '', tonumber(h[5]), h[6] or '', lapsed, over, text, size, length,
          tonumber(h[11] or '0'), h[12] or '', (note ~= '' or choices ~= '') and note or nil,
          choices ~= '' and choices or nil}
end
