-- Find the conversation of a question under the key that its client gave it; the first call decides.
-- KEYS: 1 the request's record; of a question without a named conversation also 2 the session of its earlier messages
-- ARGV: digest of the request, session where none is found, seconds the record lives
-- Reply: the record "<digest> <session> <1 if the session was found>"; the session of the messages is taken with it
local known = redis.call('GET', KEYS[1])
if known then return known end
local found = KEYS[2] and redis.call('GET', KEYS[2])
if found then redis.call('DEL', KEYS[2]) end
local record = ARGV[1] .. ' ' .. (found or ARGV[2]) .. ' ' .. (found and '1' or '0')
redis.call('SET', KEYS[1], record, 'PX', math.ceil(ARGV[3] * 1000))
return record
