-- Start a claimed batch's hold anew, because its handler starts later than the grace allows.
-- ARGV 3 id, 4 nonce of the claim, 5 grace_ms, 6 nonce of this renewal
-- Returns 1 when the hold begins now; 0 when it or the claim had ended, the capacity is now less, or
-- nothing may start: then the handler must not. O(1)
-- @include header limits holds gate index key_holds
local b = call('HMGET', batch_key(ARGV[3]), 'state', 'nonce', 'cost', 'costs', 'ends', 'held',
  'renewal', 'watcher', 'key', 'hold')
if b[1] ~= 'claimed' or b[2] ~= ARGV[4] then return 0 end
if b[7] == ARGV[6] or (b[6] ~= '1' and not b[10]) then return 1 end
if gate() then return 0 end
local of_key, grace = { watcher = b[8], key = b[9], hold = b[10] }, tonumber(ARGV[5])
if not key_stands(of_key, grace) then return 0 end
if b[6] == '1' then
  read_limits(ARGV[5])
  local costs, ends = costs_of_batch({ cost = b[3], costs = b[4] or nil }), open_costs(b[5])
  if not let_go(costs, ends) then return 0 end
  if not fits_what_started(costs) then
    for n, limit in ipairs(limits) do hold_until(limit, ends[n], costs[limit.dimension] or 0) end
    return 0
  end
  call('HSET', batch_key(ARGV[3]), 'ends', pack_costs(hold(costs)))
end
start_key(of_key, grace)
call('HSET', batch_key(ARGV[3]), 'renewal', ARGV[6])
return 1
