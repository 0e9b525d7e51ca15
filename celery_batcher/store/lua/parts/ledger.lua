-- The audit of batches and holds: all at one moment, while they are few enough.

local BATCH_SUMS = { 'open_batches', 'open', 'open_cost', 'running_batches', 'running',
  'running_cost' }

-- What the batches of one state are: adds to the sums of the batcher and, by watcher, to those of its
-- fields. Returns the costs that the unclaimed hold of the resource, by dimension.
local function count_batches(zset, state, sums, watchers)
  local held = { 0 }
  for _, id in ipairs(call('ZRANGE', zset, 0, -1)) do
    local b = call('HMGET', batch_key(id), 'watcher', 'n', 'cost', 'held', 'costs')
    local n, cost = tonumber(b[2]) or 0, tonumber(b[3]) or 0
    sums[state .. '_batches'] = sums[state .. '_batches'] + 1
    sums[state], sums[state .. '_cost'] = sums[state] + n, sums[state .. '_cost'] + cost
    local own = watchers[b[1]]
    if own and state == 'open' then
      own.on, own.oc = own.on + 1, own.oc + cost
    elseif own then
      own.cn = own.cn + 1
    end
    if b[4] == '1' then
      for d, more in ipairs(costs_of_batch({ cost = b[3], costs = b[5] or nil })) do
        held[d] = (held[d] or 0) + more
      end
    end
  end
  return held
end

local function compare_batches()
  local sums, watchers = {}, {}
  for _, name in ipairs(BATCH_SUMS) do sums[name] = 0 end
  for _, w in ipairs(call('SMEMBERS', WATCHERS)) do watchers[w] = { on = 0, oc = 0, cn = 0 } end
  local shares = count_batches(OPEN, 'open', sums, watchers)
  count_batches(CLAIMED, 'running', sums, watchers)
  compare_fields('', BATCH_SUMS, sums)
  for w, own in pairs(watchers) do compare_fields(w, { 'on', 'oc', 'cn' }, own) end
  return shares
end

-- This batcher's share of what unclaimed batches hold in a dimension, and the sum of all shares.
local function compare_open_holds(dimension, share)
  local field = nth('open', dimension)
  local prefix, sum = field .. ':', share
  local mine = prefix .. BASE
  local res = call('HGETALL', RES)
  for i = 1, #res, 2 do
    if string.sub(res[i], 1, #prefix) == prefix and res[i] ~= mine then sum = sum + res[i + 1] end
  end
  compare(nth('held_open_share', dimension), '', RES, mine, num(RES, mine), share)
  compare(nth('held_open', dimension), '', RES, field, num(RES, field), sum)
end

local function compare_holds(n, most)
  local costs = nth(COSTS, n)
  if call('HLEN', costs) > most then
    skipped[#skipped + 1] = 'more holds than one look may take'
    return
  end
  local sum = 0
  for _, cost in ipairs(call('HVALS', costs)) do sum = sum + cost end
  compare(nth('held', n), '', RES, nth('held', n), num(RES, nth('held', n)), sum)
end

-- Returns how many entries that was worth. O(batches + holds + watchers)
local function audit_ledger(most)
  local batches, limits = call('ZCARD', OPEN) + call('ZCARD', CLAIMED), math.max(1, num(RES, 'limits'))
  if batches > most then
    skipped[#skipped + 1] = 'more batches than one look may take'
  else
    local shares = compare_batches()
    for d = 1, math.max(num(RES, nth('dimension', limits)), #shares) do
      compare_open_holds(d, shares[d] or 0)
    end
  end
  for n = 1, limits do compare_holds(n, most) end
  return batches + call('SCARD', WATCHERS) / 4
end
