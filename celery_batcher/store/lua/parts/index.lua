-- The index: the operations of a watcher by priority and key, in blocks (blocks.lua).
-- q: list of what arrived, r: sorted set of what came back, both in sequence;
-- t: hash of keys whose first block in q is taken in part: how much of it;
-- k: sorted set of keys by their virtual time (start-time fair queueing);
-- s: sorted set of groups that stay together (together.lua), before all keys;
-- n: sorted set of keys with operations by name, in which order the audit walks (walk.lua).
local PRIORITIES, BACKFILL = 3, 2

local function watcher_key(w) return BASE .. 'w:' .. w end
local function ring_key(w, prio) return BASE .. 'k:' .. w .. ':' .. prio end
local function names_key(w, prio) return BASE .. 'n:' .. w .. ':' .. prio end
local function queue_key(w, prio, key) return BASE .. 'q:' .. w .. ':' .. prio .. ':' .. key end
local function returned_key(w, prio, key) return BASE .. 'r:' .. w .. ':' .. prio .. ':' .. key end
local function taken_key(w, prio) return BASE .. 't:' .. w .. ':' .. prio end
local function batch_key(id) return BASE .. 'batch:' .. id end
local function blocks_key(id) return BASE .. 'blocks:' .. id end
local function together_key(w) return BASE .. 's:' .. w end
local function dead_key(w) return BASE .. 'dead:' .. w end

-- Groups whose key is at its cap (key_waits.lua) are behind this score, and behind all others.
local ASIDE_FROM = 2 ^ 52

-- Whether there are groups that go before everything else.
local function any_group(w, ns)
  if ns == 0 then return false end
  return call('ZCOUNT', together_key(w), '-inf', '(' .. text(ASIDE_FROM)) > 0
end

-- A watcher is in the ring while it has operations and may release a batch; in another while it has
-- back-fills, and no halves that go before them.
local function reindex(w)
  local o = call('HMGET', watcher_key(w), 'n', 'n2', 'on', 'cn', 'max_concurrent', 'probe', 'tag',
    'tag#2', 'ns')
  local n, back, ns = tonumber(o[1]) or 0, tonumber(o[2]) or 0, tonumber(o[9]) or 0
  local on, cn, most = tonumber(o[3]) or 0, tonumber(o[4]) or 0, tonumber(o[5]) or 0
  local may = (most == 0 or on + cn < most) and not (o[6] == '1' and on > 0)
  for class, ring in ipairs({ RING, BACK }) do
    if may and (class == 1 and n > back or class == 2 and back > 0 and not any_group(w, ns)) then
      local tag = math.max(tonumber(o[6 + class]) or 0, num(META, nth('vtime', class)))
      call('ZADD', ring, 'NX', tag, w)
    else
      call('ZREM', ring, w)
    end
  end
end

-- A key joins its watcher's ring at the virtual time, unless it is in there.
local times = {}
local function join(w, prio, key)
  local ring = ring_key(w, prio)
  times[ring] = times[ring] or num(watcher_key(w), 'v' .. prio)
  call('ZADD', ring, 'NX', times[ring], key)
  call('ZADD', names_key(w, prio), 0, key)
end

-- What unclaimed batches hold of the resource (1) or no longer hold (-1), by dimension: of all
-- batchers, and this one's share.
local function hold_open(costs, sign)
  for dimension, cost in ipairs(costs) do
    add(RES, nth('open', dimension), sign * cost)
    add(RES, nth('open', dimension) .. ':' .. BASE, sign * cost)
  end
end

-- The costs of a batch, by dimension.
local function costs_of_batch(b)
  return b.costs and open_costs(b.costs) or { tonumber(b.cost) }
end

-- What the sum of all costs may still grow by: below 2^53 a double is exact.
local function headroom()
  local left = 2 ^ 53 - 1
  for _, state in ipairs({ 'admitted', 'waiting', 'delayed', 'open', 'running' }) do
    left = left - num(META, state .. '_cost')
  end
  return left
end

-- Operations wait (again): counters of watcher and batcher. For groups `prio` is 's'.
local function count_waiting(w, prio, n, cost)
  local W = watcher_key(w)
  add(W, 'n', n)
  add(W, 'cost', cost)
  add(W, 'n' .. prio, n)
  add(META, 'waiting', n)
  add(META, 'waiting_cost', cost)
end
