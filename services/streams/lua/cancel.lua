-- End a running stream for its reader; the owner learns of it with its next append.
-- Reply: the status it had, or false
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'processing' then
  redis.call('HSET', KEYS[1], 'status', 'cancelled', 'error_code', 'cancelled', 'dify_finished', '1')
end
return status
