-- The audit of batches and holds: all at one moment, while they are few enough.

local BATCH_SUMS = { 'open_batches', 'open', 'open_cost', 'running_batches', 'running',
  'running_cost' }

-- What the batches of one state are: adds to the sums of the batcher and, by watcher, to those of its
-- fields. Returns the cost that the unclaimed hold of the resource.
local function count_batches(zset, state, sums, watchers)
  local held = 0
  for _, id in ipairs(call('ZRANGE', zset, 0, -1)) do
    local b = call('HMGET', batch_key(id), 'watcher', 'n', 'cost', 'held')
    local n, cost = tonumber(b[2]) or 0, tonumber(b[3]) or 0
    sums[state .. '_batches'] = sums[state .. '_batches'] + 1
    sums[state], sums[state .. '_cost'] = sums[state] + n, sums[state .. '_cost'] + cost
    local own = watchers[b[1]]
    if own and state == 'open' then
      own.on, own.oc = own.on + 1, own.oc + cost
    elseif own then
      own.cn = own.cn + 1
    end
    if b[4] == '1' then held = held + cost end
  end
  return held
end

local function compare_batches()
  local sums, watchers = {}, {}
  for _, name in ipairs(BATCH_SUMS) do sums[name] = 0 end
  for _, w in ipairs(call('SMEMBERS', WATCHERS)) do watchers[w] = { on = 0, oc = 0, cn = 0 } end
  local share = count_batches(OPEN, 'open', sums, watchers)
  count_batches(CLAIMED, 'running', sums, watchers)
  compare_fields('', BATCH_SUMS, sums)
  for w, own in pairs(watchers) do compare_fields(w, { 'on', 'oc', 'cn' }, own) end
  return share
end

-- This batcher's share of what unclaimed batches hold, and the sum of all shares.
local function compare_open_holds(share)
  local mine, shares = 'open:' .. BASE, share
  local res = call('HGETALL', RES)
  for i = 1, #res, 2 do
    if string.sub(res[i], 1, 5) == 'open:' and res[i] ~= mine then
      shares = shares + tonumber(res[i + 1])
    end
  end
  compare('held_open_share', '', RES, mine, num(RES, mine), share)
  compare('held_open', '', RES, 'open', num(RES, 'open'), shares)
end

local function compare_holds(most)
  if call('HLEN', COSTS) > most then
    skipped[#skipped + 1] = 'more holds than one look may take'
    return
  end
  local sum = 0
  for _, cost in ipairs(call('HVALS', COSTS)) do sum = sum + cost end
  compare('held', '', RES, 'held', num(RES, 'held'), sum)
end

-- Returns how many entries that was worth. O(batches + holds + watchers)
local function audit_ledger(most)
  local batches = call('ZCARD', OPEN) + call('ZCARD', CLAIMED)
  if batches > most then
    skipped[#skipped + 1] = 'more batches than one look may take'
  else
    compare_open_holds(compare_batches())
  end
  compare_holds(most)
  return batches + call('SCARD', WATCHERS) / 4
end
