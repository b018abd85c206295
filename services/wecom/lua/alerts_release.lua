-- Give back what a message that was not posted had claimed. KEYS: as of alerts_claim.lua
-- ARGV: the message's token, then "firing:<id>" or "resolved:<id>" of each alert
redis.call('ZREM', KEYS[2], ARGV[1])
for i = 2, #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
return 1
