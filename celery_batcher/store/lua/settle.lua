-- Record the outcome of a claimed batch; its hold stays until its end.
-- ARGV 3 id, 4 nonce of the claim, 5 outcomes, 6 reason, 7 details (putback.lua), 8.. registered
--      ids to forget when all are done
-- Returns 1 settled, also when this claim settled it before; 0 when the claim had ended, which is
-- counted once.
-- O(operations); O(1) when all are done
-- @include header blocks index meters walk together key_holds key_waits returning dead putback ending
local id, nonce = ARGV[3], ARGV[4]
local b = read_batch(id)
if not b then return settled_before(id, nonce) and 1 or refuse(id, nonce) end
if b.state ~= 'claimed' or b.nonce ~= nonce or misses(b, ARGV[5]) then return 0 end
-- A script whose first write only removes runs on a server whose memory is full.
call('ZREMRANGEBYSCORE', SETTLED, '-inf', now - 60000)
local forget = ARGV[5] == 'd' and { unpack(ARGV, 8) }
close_batch(id, b, 'settled', ARGV[5], ARGV[6], read_details(ARGV[7]), forget)
call('ZADD', SETTLED, now, id .. '/' .. nonce)
return 1
