-- The audit's walk through the index.
local WAITING = { 'n', 'cost', 'n0', 'n1', 'n2', 'ns' }

-- The next name in the priority of the walk: they are read a page at a time.
local names, named = {}, 0
local function next_name(after)
  named = named + 1
  if after == '-' or named > #names then
    names, named = call('ZRANGEBYLEX', names_key(walk.watcher, walk.prio), after, '+',
      'LIMIT', 0, PAGE), 1
  end
  return names[named]
end

-- To the next region, key or priority of the watcher; false when there is none.
local function next_place()
  if walk.region == 'r' then
    walk.region, walk.at = 'q', 0
    return true
  end
  local after = walk.key and '(' .. walk.key or '-'
  while walk.prio < PRIORITIES do
    walk.key, walk.region, walk.at = next_name(after), 'r', 0
    if walk.key then return true end
    walk.prio, after = walk.prio + 1, '-'
  end
  if walk.region == 's' then return false end
  walk.key, walk.region, walk.at = '', 's', 0
  return true
end

-- The walk has seen all of a key: it is in its ring, waits at its caps, or has no operations and no
-- name.
local function leave_key(w, prio, key)
  if walk.at == 0 and call('EXISTS', returned_key(w, prio, key)) == 0 then
    call('ZREM', names_key(w, prio), key)
  elseif not call('ZSCORE', ring_key(w, prio), key)
    and call('HEXISTS', key_sums(w), 'w' .. key) == 0 then
    join(w, prio, key)
  end
end

-- Walk through one region of a key. Returns whether its end was reached.
local function walk_place()
  local w, prio, key = walk.watcher, walk.prio, walk.key
  local n, cost, arrived = 0, 0, walk.region == 'q'
  local place = arrived and queue_key(w, prio, key)
    or walk.region == 'r' and returned_key(w, prio, key) or together_key(w)
  local done = visit(arrived and 'LRANGE' or 'ZRANGE', place, function(data, rank)
    local block = open_block(data)
    if arrived and rank == 0 and block.n > 1 then
      block = open_block(data, call('HGET', taken_key(w, prio), key))
    end
    n, cost = n + block.n, cost + block.cost
  end)
  count.sum_up(prio, n, cost)
  if done and arrived then leave_key(w, prio, key) end
  return done
end

-- Counters that are wrong by so much are left out of the totals' comparison.
local function leave_watcher()
  local wrong = compare_fields(walk.watcher, WAITING, take_sums())
  add(WALK, 'off_n', wrong.n)
  add(WALK, 'off_cost', wrong.cost)
end

local function compare_totals()
  local off, n, cost = call('HMGET', WALK, 'off_n', 'off_cost'), 0, 0
  for _, w in ipairs(call('SMEMBERS', WATCHERS)) do
    local o = call('HMGET', watcher_key(w), 'n', 'cost')
    n, cost = n + (tonumber(o[1]) or 0), cost + (tonumber(o[2]) or 0)
  end
  compare_fields('', { 'waiting', 'waiting_cost' },
    { waiting = n - (off[1] or 0), waiting_cost = cost - (off[2] or 0) })
  call('HDEL', WALK, 'off_n', 'off_cost')
end

local function walk_waiting()
  if not walk.watcher then
    local w = call('LPOP', LEFT)
    if not w then
      compare_totals()
      walk = false
      return
    end
    begin('waiting')
    walk.watcher, walk.prio = w, 0
  elseif walk.key and not walk_place() then
    return
  end
  room.entries = room.entries - 0.5
  if not next_place() then
    leave_watcher()
    room.entries = room.entries - 2
    walk.watcher = nil
  end
end
