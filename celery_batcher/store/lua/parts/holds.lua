-- Holds with an end: of each limit, ENDS and COSTS have a row per time at which holds end, RES.held
-- is their sum; of each dimension RES.open is the cost of batches that no worker has claimed.

-- The end of a hold that begins now. Of long windows, ends are rounded up to a 2,000th of them, so
-- that there is no row per batch.
local function end_of(limit)
  return math.ceil((now + limit.hold) / limit.bucket) * limit.bucket
end

local function add_row(limit, ends, cost)
  call('ZADD', nth(ENDS, limit.n), ends, text(ends))
  call('HINCRBY', nth(COSTS, limit.n), text(ends), text(cost))
end

-- Let go of what has ended; cut what a clock that went back left too far away.
local function lapse_one(limit)
  local ends_key, costs_key = nth(ENDS, limit.n), nth(COSTS, limit.n)
  local latest = end_of(limit)
  for _, member in ipairs(call('ZREVRANGEBYSCORE', ends_key, '+inf', '(' .. text(latest))) do
    local cost = num(costs_key, member)
    call('ZREM', ends_key, member)
    call('HDEL', costs_key, member)
    add_row(limit, latest, cost)
  end
  while true do
    local ended = call('ZRANGEBYSCORE', ends_key, '-inf', now, 'LIMIT', 0, 1000)
    if #ended == 0 then return end
    local freed = 0
    for _, cost in ipairs(call('HMGET', costs_key, unpack(ended))) do freed = freed + (cost or 0) end
    call('ZREM', ends_key, unpack(ended))
    call('HDEL', costs_key, unpack(ended))
    add(RES, nth('held', limit.n), -freed)
  end
end

local function lapse()
  for _, limit in ipairs(limits) do lapse_one(limit) end
end

local function hold_until(limit, ends, cost)
  add_row(limit, ends, cost)
  add(RES, nth('held', limit.n), cost)
end

-- Hold these costs from now on. Returns the ends, by limit.
local function hold(costs)
  local ends = {}
  for n, limit in ipairs(limits) do
    ends[n] = end_of(limit)
    hold_until(limit, ends[n], costs[limit.dimension] or 0)
  end
  return ends
end

-- Let go of as much of what ends then, as far as it is there. Returns how much that is.
local function let_go_of(limit, ends, cost)
  cost = math.min(cost, num(nth(COSTS, limit.n), text(ends)))
  add(nth(COSTS, limit.n), text(ends), -cost)
  add(RES, nth('held', limit.n), -cost)
  return cost
end

-- Let go of a hold that has not ended. Returns whether it was there.
local function let_go(costs, ends)
  for n, limit in ipairs(limits) do
    local row = num(nth(COSTS, n), text(ends[n] or 0))
    if not ends[n] or ends[n] <= now or row < (costs[limit.dimension] or 0) then return false end
  end
  for n, limit in ipairs(limits) do
    let_go_of(limit, ends[n], costs[limit.dimension] or 0)
  end
  return true
end

-- The costs that a limit holds with an end and without.
local function held(limit)
  local h = call('HMGET', RES, nth('held', limit.n), nth('open', limit.dimension))
  return tonumber(h[1]) or 0, tonumber(h[2]) or 0
end

-- What of a limit is neither held nor owed.
local function free(limit)
  local claimed, open = held(limit)
  return limit.capacity - claimed - open
end

-- Whether it costs more than what the resource has now.
local function exceeds_capacity(costs)
  for _, limit in ipairs(limits) do
    if (costs[limit.dimension] or 0) > limit.capacity then return true end
  end
  return false
end

-- Whether there is room for these costs beside all that started within the windows.
local function fits_what_started(costs)
  for _, limit in ipairs(limits) do
    if held(limit) + (costs[limit.dimension] or 0) > limit.capacity then return false end
  end
  return true
end

-- What was charged above its estimate is owed: as far as it is free it becomes a hold without a
-- batch.
local function pay_debts()
  for n, limit in ipairs(limits) do
    local paid = math.min(num(RES, nth('debt', n)), free(limit))
    if paid > 0 then
      hold_until(limit, end_of(limit), paid)
      add(RES, nth('debt', n), -paid)
    end
  end
end

-- Milliseconds until `need` more of a limit has ended, as far as ends are known.
local function wait_for(limit, need)
  local rows = call('ZRANGE', nth(ENDS, limit.n), 0, 199)
  for _, member in ipairs(rows) do
    need = need - num(nth(COSTS, limit.n), member)
    if need <= 0 then return math.max(1, tonumber(member) - now) end
  end
  return -1
end

-- Milliseconds for which nothing may start because the server may have lost holds: it is
-- younger than a hold, or another server than before.
local function guard(hold_ms)
  if ARGV[2] ~= '' and call('HEXISTS', RES, 'run_id') == 0 then
    call('HSET', RES, 'run_id', 'tests')
  end
  local info = ARGV[2] == '' and call('INFO', 'server') or 'run_id:' .. call('HGET', RES, 'run_id')
  local run = string.match(info, 'run_id:(%w+)')
  local known = call('HGET', RES, 'run_id')
  if known ~= run then
    local uptime_ms = 1000 * tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or 0)
    call('HSET', RES, 'run_id', run)
    if known or uptime_ms <= hold_ms then
      call('HSET', RES, 'guard_until', now + hold_ms)
    end
  end
  return math.max(0, num(RES, 'guard_until') - now)
end
