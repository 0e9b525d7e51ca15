-- Set what the resource may give, for the whole fleet, from the next release and claim on. More of it
-- comes in steps where the resource has a ramp, or has not recovered yet from a throttling.
-- ARGV 3 capacities by limit, as text, 4 reserved of a leased one ('' as it is)
-- Returns the capacities that stood before, as text; '' when there is no resource. O(watchers)
-- @include header limits index
if call('HEXISTS', RES, 'capacity') == 0 then return '' end
local given, before = open_costs(ARGV[3]), {}
for n, limit in ipairs(read_limits(0)) do
  before[n] = limit.provisioned
  local ramp = call('HGET', RES, nth('ramp', n))
  local step = ramp and given[n] > limit.capacity and ramp
    or limit.capacity < limit.provisioned and limit.step
  if step and not shared.factor then
    call('HSET', RES, nth('from', n), text(math.min(limit.capacity, given[n])), nth('step', n), step)
  else
    call('HDEL', RES, nth('from', n), nth('step', n))
  end
  call('HSET', RES, nth('capacity', n), text(given[n]))
end
call('HSET', RES, 'from_ms', math.max(now, num(RES, 'closed_until')))
if ARGV[4] ~= '' then call('HSET', RES, 'reserved', ARGV[4]) end
for _, w in ipairs(call('SMEMBERS', WATCHERS)) do reindex(w) end
return pack_costs(before)
