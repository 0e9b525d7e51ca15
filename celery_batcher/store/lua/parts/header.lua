-- Every script of the store starts with this.
-- KEYS 1 res, 2 ends, 3 costs, 4 meta, 5 ring, 6 open, 7 claimed, 8 offers, 9 settled,
-- 10 admitted, 11 lanes, 12 ids, 13 noted, 14 aside, 15 watchers, 16 repeated, 17 later; keys.py
-- has the table
-- ARGV 1 prefix of the batcher's index keys, 2 the time in ms (tests only, else '')
local RES, ENDS, COSTS, META, RING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local OPEN, CLAIMED, OFFERS, SETTLED = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local ADMITTED, LANES, IDS, NOTED, ASIDE = KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local WATCHERS, REPEATED, LATER = KEYS[15], KEYS[16], KEYS[17]
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
