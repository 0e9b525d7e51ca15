-- Take back batches whose worker did not settle before the deadline, as if their handlers had raised.
-- After a time in which nobody could reach the store, workers get the claim's grace once more.
-- ARGV 3 token, 4 claim_grace_ms, 5 reason, 6 how many at most, 7 outage_ms: a silence this long
--      is one
-- Returns per batch {id, watcher, operations, {id, attempt, ... of those that died}}.
-- O(operations of the batches)
-- @include header blocks index meters walk together key_holds key_waits returning dead putback ending
if call('HGET', META, 'turn') ~= ARGV[3] then return {} end
local seen = num(META, 'expire_ms')
if seen > 0 and now - seen > tonumber(ARGV[7]) then
  call('HSET', META, 'spare_until', now + tonumber(ARGV[4]))
end
call('HSET', META, 'expire_ms', now)
if num(META, 'spare_until') > now then return {} end
local expired, operations = {}, 0
for _, id in ipairs(call('ZRANGEBYSCORE', CLAIMED, '-inf', now, 'LIMIT', 0, ARGV[6])) do
  local b = read_batch(id)
  expired[#expired + 1] = take_back(id, b, 'expired', ARGV[5])
  operations = operations + b.n
  if operations >= TAKEN_BACK then break end
end
add(META, 'expired', #expired)
return expired
