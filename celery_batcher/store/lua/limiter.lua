-- Take or keep the right to lease for the resource, which one limiter has at a time, and say what the
-- batchers of the resource need.
-- ARGV 3 token, 4 milliseconds that the right lasts, 5 an id for the fleet if it has none,
--      6 batcher's name
-- Returns {the number of this limiter's term, 0 when the right is another's, the fleet's id, cost of
-- everything neither done nor dead in all batchers heard of lately, capacity of the first limit,
-- reserved, milliseconds of a hold, now}. O(batchers)
-- @include header limits
local LATELY = 10000
local need = 0
for _, state in ipairs({ 'admitted', 'waiting', 'delayed', 'open', 'running' }) do
  need = need + num(META, state .. '_cost')
end
call('HSETNX', RES, 'owner', ARGV[5])
call('HSET', RES, 'needs:' .. ARGV[6], text(need) .. ' ' .. text(now))
local total = 0
for name in string.gmatch(call('HGET', RES, 'batchers') or ARGV[6], '%S+') do
  local known = open_costs(call('HGET', RES, 'needs:' .. name))
  if known[2] and now - known[2] <= LATELY then total = total + known[1] end
end
local holder = call('HGET', RES, 'limiter')
local term = 0
if holder == ARGV[3] or not holder or num(RES, 'limiter_until') <= now then
  if holder ~= ARGV[3] then add(RES, 'term', 1) end
  call('HSET', RES, 'limiter', ARGV[3], 'limiter_until', now + ARGV[4])
  term = num(RES, 'term')
end
return { term, call('HGET', RES, 'owner'), text(total), text(num(RES, 'capacity')),
  text(num(RES, 'reserved')), read_limits(0)[1].hold, now }
