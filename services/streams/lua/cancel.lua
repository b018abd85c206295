-- Cancel a running stream for its reader; the owner's next append gets {'closed', 'cancelled'}.
-- Reply: the status before, or false
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'processing' then
  redis.call('HSET', KEYS[1], 'status', 'cancelled', 'error_code', 'cancelled', 'dify_finished', '1')
end
return status
