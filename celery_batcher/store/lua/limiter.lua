-- Take or keep the right to lease for the resource, which one limiter has at a time, and say what the
-- batchers of the resource need.
-- ARGV 3 token, 4 milliseconds that the right lasts, 5 an id for the fleet if it has none,
--      6 batcher's name
-- Returns {1 if the right is this limiter's, the fleet's id, cost of everything neither done nor dead
-- in all batchers heard of lately, capacity of the first limit, reserved}. O(batchers)
-- @include header
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
local mine = holder == ARGV[3] or not holder or num(RES, 'limiter_until') <= now
if mine then call('HSET', RES, 'limiter', ARGV[3], 'limiter_until', now + ARGV[4]) end
return { mine and 1 or 0, call('HGET', RES, 'owner'), text(total), text(num(RES, 'capacity')),
  text(num(RES, 'reserved')) }
