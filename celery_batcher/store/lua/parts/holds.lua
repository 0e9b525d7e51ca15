-- Holds with an end: ENDS and COSTS have a row per millisecond in which holds end,
-- RES.held is their sum, RES.open the cost of batches that no worker has claimed.

-- Batchers of one resource may differ in window or grace: the longest hold counts for all.
local function longest_hold(hold_ms)
  return math.max(tonumber(hold_ms), num(RES, 'hold_ms'))
end

-- Let go of what has ended; cut what a clock that went back left too far away.
local function lapse(hold_ms)
  local late = call('ZREVRANGEBYSCORE', ENDS, '+inf', '(' .. text(now + hold_ms))
  for _, member in ipairs(late) do
    local cost = num(COSTS, member)
    call('ZREM', ENDS, member)
    call('HDEL', COSTS, member)
    call('ZADD', ENDS, now + hold_ms, text(now + hold_ms))
    call('HINCRBY', COSTS, text(now + hold_ms), cost)
  end
  while true do
    local ended = call('ZRANGEBYSCORE', ENDS, '-inf', now, 'LIMIT', 0, 1000)
    if #ended == 0 then return end
    local freed = 0
    for _, cost in ipairs(call('HMGET', COSTS, unpack(ended))) do freed = freed + (cost or 0) end
    call('ZREM', ENDS, unpack(ended))
    call('HDEL', COSTS, unpack(ended))
    add(RES, 'held', -freed)
  end
end

local function hold_until(ends, cost)
  call('ZADD', ENDS, ends, text(ends))
  call('HINCRBY', COSTS, text(ends), cost)
  add(RES, 'held', cost)
end

-- Milliseconds until `need` more capacity has ended, as far as ends are known.
local function wait_for(need)
  local rows = call('ZRANGE', ENDS, 0, 199)
  for _, member in ipairs(rows) do
    need = need - num(COSTS, member)
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
