-- Record the outcomes that a handler has decided so far; the undecided stay in the batch.
-- ARGV 3 id, 4 nonce of the claim, 5 which commit of this claim it is, 6 outcomes, 7 reason,
--      8 details (putback.lua)
-- Returns 1, also when this commit was recorded before; 0 when the claim had ended, which is
-- counted once. O(operations)
-- @include header blocks index meters walk together key_holds key_waits returning dead putback ending
local id, number = ARGV[3], tonumber(ARGV[5])
local b = read_batch(id)
if not b then return settled_before(id, ARGV[4]) and 0 or refuse(id, ARGV[4]) end
if b.state ~= 'claimed' or b.nonce ~= ARGV[4] then return 0 end
if (tonumber(b.commits) or 0) >= number then return 1 end
if misses(b, ARGV[6]) then return 0 end
local blocks, details = call('LRANGE', blocks_key(id), 0, -1), read_details(ARGV[8])
call('DEL', blocks_key(id)) -- first: on a server whose memory is full, such a script runs
local kept, n, cost, _, tally = give_back(b, ARGV[6], blocks, ARGV[7], details)
if #kept > 0 then call('RPUSH', blocks_key(id), unpack(kept)) end
add(META, 'running', -n)
add(META, 'running_cost', -cost)
meters.count_outcomes(b.watcher, tally)
for i, before in ipairs(meters.open_tally(b.tally)) do tally[i] = tally[i] + before end
call('HSET', batch_key(id), 'n', b.n - n, 'cost', text(b.cost - cost), 'commits', number, 'tally',
  pack_costs(tally))
reindex(b.watcher)
return 1
