-- Settle what operations of a claimed batch really cost. What they cost less is free at once; what
-- they cost more is owed, and later releases pay it.
-- ARGV 3 id, 4 nonce of the claim, 5 which charge of this claim it is, 6 differences by dimension,
--      as text, 7 what to learn as JSON ('' nothing): [[cost key, cost, ...], ...]
-- Returns 1, also when this charge was recorded before; 0 when the claim had ended. O(limits)
-- @include header limits holds index estimating
local b = call('HMGET', batch_key(ARGV[3]), 'state', 'nonce', 'held', 'ends', 'charges', 'watcher')
if b[1] ~= 'claimed' or b[2] ~= ARGV[4] then return 0 end
if (tonumber(b[5]) or 0) >= tonumber(ARGV[5]) then return 1 end
call('HSET', batch_key(ARGV[3]), 'charges', ARGV[5])
if ARGV[7] ~= '' then learn(b[6], cjson.decode(ARGV[7])) end
if b[3] ~= '1' then return 1 end
local differences, ends = open_costs(ARGV[6]), open_costs(b[4])
for n, limit in ipairs(read_limits(0)) do
  local more = differences[limit.dimension] or 0
  if more > 0 then add(RES, nth('debt', n), more) end
  if more < 0 and ends[n] > now then let_go_of(limit, ends[n], -more) end
end
return 1
