-- Replace an owner's claim by the outcome of its late message, unless the claim was given up meanwhile.
-- ARGV: owner, outcome
-- Reply: 1 replaced, 0 not
local claim = redis.call('HGET', KEYS[1], 'delivered') or ''
if string.match(claim, '^claimed %S+ %S+ (.+)$') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'delivered', ARGV[2])
return 1
