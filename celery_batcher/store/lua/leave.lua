-- Give the turn back, so that the next one need not wait for its end.
-- ARGV 3 token. Returns 1 when it was ours. O(1)
-- @include header
if call('HGET', META, 'turn') ~= ARGV[3] then return 0 end
call('HDEL', META, 'turn', 'turn_until')
return 1
