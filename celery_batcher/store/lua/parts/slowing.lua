-- Additive increase, multiplicative decrease (Chiu and Jain 1989): an adaptive resource that is
-- throttled goes on with half of what it had, and comes back step by step to what is provisioned.
local function slow_down(opens)
  if call('HGET', RES, 'adaptive') ~= '1' then return end
  for n, limit in ipairs(read_limits(0)) do
    local from = math.max(math.min(1, limit.capacity), math.floor(limit.capacity / 2))
    local step = num(RES, nth('ramp', n))
    if step == 0 then step = math.max(1, math.ceil(limit.provisioned / 20)) end
    call('HSET', RES, nth('from', n), text(from), nth('step', n), text(step))
  end
  call('HSET', RES, 'from_ms', opens)
end

-- Recovery begins when the resource opens.
local function close_until(later)
  local closed = num(RES, 'closed_until')
  call('HSET', RES, 'closed_until', later)
  if closed <= now then slow_down(later) else call('HSET', RES, 'from_ms', later) end
end
