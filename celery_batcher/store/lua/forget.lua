-- Forget ids of messages whose acknowledgement has arrived at the broker, and ids of a day ago; and
-- operations whose duplicates are no longer dropped, 1,000 a call.
-- ARGV 3.. ids of messages. Returns how many ids are still noted. O(messages)
-- @include header
if #ARGV > 2 then call('ZREM', NOTED, unpack(ARGV, 3)) end
for _, id in ipairs(call('ZRANGEBYSCORE', NOTED, '-inf', now - 86400000, 'LIMIT', 0, 1000)) do
  call('ZREM', NOTED, id)
end
local over = call('ZRANGEBYSCORE', BASE .. 'deduped', '-inf', now, 'LIMIT', 0, 1000)
if #over > 0 then call('ZREM', BASE .. 'deduped', unpack(over)) end
return call('ZCARD', NOTED)
