-- Every script of the store starts with this.
-- KEYS 1 res, 2 ends, 3 costs, 4 leases, 5 meta, 6 ring, 7 back, 8 open, 9 claimed, 10 offers,
-- 11 settled, 12 admitted, 13 lanes, 14 ids, 15 noted, 16 aside, 17 watchers, 18 repeated, 19 later,
-- 20 parked, 21 key_ends, 22 flushes, 23 recent; keys.py has the table
-- ARGV 1 prefix of the batcher's index keys, 2 the time in ms (tests only, else '')
local RES, ENDS, COSTS, LEASES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local META, RING, BACK, OPEN, CLAIMED = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local OFFERS, SETTLED, ADMITTED, LANES, IDS = KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local NOTED, ASIDE, WATCHERS, REPEATED = KEYS[15], KEYS[16], KEYS[17], KEYS[18]
local LATER, PARKED, KEY_ENDS = KEYS[19], KEYS[20], KEYS[21]
local BASE = ARGV[1]
local call = redis.call
local time = call('TIME')
local now = tonumber(ARGV[2]) or time[1] * 1000 + math.floor(time[2] / 1000)

local function num(key, field)
  return tonumber(call('HGET', key, field)) or 0
end

local function add(key, field, n)
  if n ~= 0 then call('HINCRBY', key, field, string.format('%.0f', n)) end
end

-- Whole milliseconds or exact doubles as text: `..` and tostring keep 14 digits only.
local function text(n)
  return string.format('%.17g', n)
end

-- Of several dimensions or limits, names of the n-th have `#n` behind them; those of the first do
-- not.
local function nth(name, n) return n == 1 and name or name .. '#' .. n end

-- Costs by dimension, as text and back.
local function pack_costs(costs)
  local texts = {}
  for i, cost in ipairs(costs) do texts[i] = text(cost) end
  return table.concat(texts, ' ')
end

local function open_costs(packed)
  local costs = {}
  for cost in string.gmatch(packed or '', '%S+') do costs[#costs + 1] = tonumber(cost) end
  return costs
end
