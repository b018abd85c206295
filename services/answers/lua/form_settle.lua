-- End a question's claim of a form. KEYS: 1 forms. ARGV: now, form, stream id of the question, 'done' | 'open'
-- 'done': the form was answered; 'open': the provider did not get the answer, so another one may be given.
-- Reply: 1, or 0 where the question has no claim
local kept = redis.call('HGET', KEYS[1], ARGV[2])
if not kept then return 0 end
local head, stream, claim, done, sealed = string.match(kept, '^(%S+ %S+ %S+) (%S+) (%S+) (%S+) (.*)$')
if stream ~= ARGV[3] then return 0 end
if ARGV[4] == 'open' then stream, claim, done = '-', '-', '-' else done = stamp(clock(ARGV[1])) end
redis.call('HSET', KEYS[1], ARGV[2], head .. ' ' .. stream .. ' ' .. claim .. ' ' .. done .. ' ' .. sealed)
return 1
