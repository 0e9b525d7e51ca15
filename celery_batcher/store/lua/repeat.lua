-- A publish broke off and the message may or may not be in its lane: may it be published again?
-- While it is in the books it has not arrived; then the second of two to arrive will be dropped.
-- ARGV 3 id of the message. Returns 1 to publish again, 0 when it has arrived. O(log repeated)
-- @include header
call('ZREMRANGEBYSCORE', REPEATED, '-inf', now - 86400000)
if call('HEXISTS', ADMITTED, ARGV[3]) == 0 then return 0 end
call('ZADD', REPEATED, now, ARGV[3])
return 1
