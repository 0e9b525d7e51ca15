-- The audit's walk, and what every change of what it counts has to tell it (a write barrier).
-- It counts what is there, some at a time, in a fixed order of places: per watcher by priority, key
-- (in the order of bytes), what came back before what arrived, rank; then groups. A change at a
-- place that it has passed changes its sums, too; what changes further on it will meet. So at the
-- end its sums are those of that moment, whatever went on meanwhile.
-- WALK has the cursor: part, pass, watcher, prio, key, region, and `at`: entries of this place that
-- were passed. SUMS has what was counted, by the counter that should say the same.
local WALK, SUMS = BASE .. 'walk', BASE .. 'sums'
local walk -- read once, by the first who asks; false while no walk is on

local function read_walk()
  if walk == nil then
    local c = call('HMGET', WALK, 'part', 'pass', 'watcher', 'prio', 'key', 'region', 'at')
    walk = c[1] and { part = c[1], pass = c[2], watcher = c[3], prio = tonumber(c[4]),
      key = c[5], region = c[6], at = tonumber(c[7]) or 0 }
  end
  return walk
end

-- Whether the walk is in this part; in what waits, whether it is at this watcher.
local function walks(part, w)
  return read_walk() and walk.part == part and (not w or walk.watcher == w)
end

-- What to tell the walk, made in scripts that meet one: most do not, and save the time.
local function make_barrier()
  local barrier = {}

  -- Add to a sum. The walk itself gathers and adds at the end of a step (walking.lua).
  function barrier.sum(name, n) add(SUMS, name, n) end

  function barrier.sum_up(prio, n, cost)
    barrier.sum('n', n)
    barrier.sum('cost', cost)
    barrier.sum(prio == PRIORITIES and 'ns' or 'n' .. prio, n)
  end

  function barrier.sum_up_delayed(w, n, cost)
    barrier.sum('delayed', n)
    barrier.sum('delayed_cost', cost)
    barrier.sum('d:' .. w, n)
  end

  -- The books have no order: a record has the number of the pass that has counted it.
  function barrier.sum_up_admitted(w, messages, n, cost)
    barrier.sum('admitted', n)
    barrier.sum('admitted_cost', cost)
    barrier.sum('m:' .. w, messages)
  end

  -- Whether a name comes before another, as the server orders them: Lua's `<` obeys the locale.
  function barrier.precedes(name, other)
    for i = 1, math.min(#name, #other) do
      local a, b = string.byte(name, i), string.byte(other, i)
      if a ~= b then return a < b end
    end
    return #name < #other
  end

  -- Of a place: 'passed', 'here', or 'ahead'.
  local function whereabouts(prio, key, region)
    if prio ~= walk.prio then return prio < walk.prio and 'passed' or 'ahead' end
    if not walk.key then return 'ahead' end
    if key ~= walk.key then return barrier.precedes(key, walk.key) and 'passed' or 'ahead' end
    if region ~= walk.region then return region == 'r' and 'passed' or 'ahead' end
    return 'here'
  end

  -- Entries came to (1), left (-1), or shrank (0) at the rank of a place where the walk is. Returns
  -- whether it had passed them.
  local function moved(rank, entries)
    if rank >= walk.at then return false end
    walk.at = walk.at + entries
    add(WALK, 'at', entries)
    return true
  end

  -- What waits at a place becomes more or less. `rank`: of the entry, or that of this member of
  -- `zset`. Tell what has come when it is there, and what leaves before it does.
  function barrier.note(prio, key, region, rank, entries, n, cost, zset)
    local where = whereabouts(prio, key, region)
    if where == 'here' then
      if zset then rank = call('ZRANK', zset, rank) end
      where = moved(rank, entries) and 'passed'
    end
    if where == 'passed' then barrier.sum_up(prio, n, cost) end
  end

  -- The first block of a key leaves.
  function barrier.note_left(w, prio, key, block)
    if block.returned then
      barrier.note(prio, key, 'r', block.data, -1, -1, -block.cost, returned_key(w, prio, key))
    else
      barrier.note(prio, key, 'q', 0, -1, -block.n, -block.cost)
    end
  end

  function barrier.note_delayed(w, member, entries, n, cost)
    if moved(call('ZRANK', LATER, member), entries) then barrier.sum_up_delayed(w, n, cost) end
  end

  return barrier
end

local made
local function barrier()
  made = made or make_barrier()
  return made
end
