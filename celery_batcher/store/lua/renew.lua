-- Start a claimed batch's hold anew, because its handler starts later than the grace allows.
-- ARGV 3 id, 4 nonce of the claim, 5 hold_ms (window + grace), 6 nonce of this renewal
-- Returns 1 when the hold stands until now + hold_ms; 0 when it or the claim had ended. O(1)
-- @include header holds index
local b = call('HMGET', batch_key(ARGV[3]), 'state', 'nonce', 'cost', 'ends', 'held', 'renewal')
if b[1] ~= 'claimed' or b[2] ~= ARGV[4] then return 0 end
if b[5] ~= '1' or b[6] == ARGV[6] then return 1 end
local ends, cost, hold_ms = tonumber(b[4]), tonumber(b[3]), longest_hold(ARGV[5])
if ends <= now or num(COSTS, text(ends)) < cost then return 0 end
call('HINCRBY', COSTS, text(ends), -cost)
add(RES, 'held', -cost)
hold_until(now + hold_ms, cost)
call('HSET', batch_key(ARGV[3]), 'ends', now + hold_ms, 'renewal', ARGV[6])
return 1
