-- The limits of the resource: each a capacity per window of one dimension of cost.
local shared -- what all limits have in common, read once

local function read_shared()
  if not shared then
    local c = call('HMGET', RES, 'limits', 'grace', 'from_ms', 'every', 'factor', 'reserved', 'last',
      'lacking')
    shared = { limits = tonumber(c[1]) or 1, grace = tonumber(c[2]) or 0,
      from_ms = tonumber(c[3]), every = tonumber(c[4]), factor = tonumber(c[5]),
      reserved = tonumber(c[6]) or 0, last = c[7], lacking = tonumber(c[8]) or 0 }
  end
  return shared
end

-- What of a capacity may be used now: after a rise or a throttling it comes step by step; of a
-- leased one there is what the leases that outlast a hold are worth.
local function usable(capacity, hold, from, step)
  if from and capacity > from then
    local steps = math.max(0, math.floor((now - shared.from_ms) / shared.every))
    capacity = math.min(capacity, from + step * steps)
  end
  if shared.factor then
    local leased = shared.factor * call('ZCOUNT', LEASES, now + hold, '+inf')
    local last = shared.lacking > 0 and tonumber(call('ZSCORE', LEASES, shared.last)) or 0
    if last >= now + hold then leased = leased - shared.lacking end
    capacity = math.min(capacity, shared.reserved + leased)
  end
  return capacity
end

local function read_limit(n, grace_ms)
  local c = call('HMGET', RES, nth('capacity', n), nth('window', n), nth('dimension', n),
    nth('from', n), nth('step', n))
  local provisioned, window = tonumber(c[1]) or 0, tonumber(c[2]) or 1000
  local hold = window + grace_ms
  return { n = n, dimension = tonumber(c[3]) or 1, provisioned = provisioned, window = window,
    hold = hold, bucket = math.max(1, math.floor(window / 2000)), step = tonumber(c[5]),
    capacity = usable(provisioned, hold, tonumber(c[4]), tonumber(c[5])) }
end

-- Batchers of one resource may differ in grace: the longest one counts for all.
local limits
local function read_limits(grace_ms)
  if not limits then
    limits = {}
    local grace = math.max(tonumber(grace_ms) or 0, read_shared().grace)
    for n = 1, shared.limits do limits[n] = read_limit(n, grace) end
  end
  return limits
end

-- How many dimensions of cost there are: the limits are in their order.
local function dimensions()
  return limits[#limits].dimension
end

local function longest_hold()
  local longest = 0
  for _, limit in ipairs(limits) do longest = math.max(longest, limit.hold) end
  return longest
end
