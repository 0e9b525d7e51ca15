-- How much of the capacity the batch at hand may take.

-- A head in need: an operation that has the credit and waits for more room than there is. Until it
-- has it, batchers other than its own leave it that much. Afterwards its batcher may have no such
-- note for as long as its cost takes to earn, so that the others have their time, too.
local function need_of_others(name)
  local noted = call('HGET', RES, 'head')
  if not noted or noted == name or num(RES, 'head_until') <= now then return {} end
  return open_costs(call('HGET', RES, 'head_costs'))
end

local function note(name, costs, flush_ms)
  if #need_of_others(name) > 0 or num(RES, 'rest:' .. name) > now then return end
  call('HSET', RES, 'head', name, 'head_costs', pack_costs(costs),
    'head_until', now + math.max(500, 3 * flush_ms))
end

local function satisfied(name, costs)
  if call('HGET', RES, 'head') ~= name then return end
  call('HDEL', RES, 'head', 'head_costs', 'head_until')
  local rest = 0
  for _, limit in ipairs(limits) do
    local cost = costs[limit.dimension] or 0
    if cost > 0 then rest = math.max(rest, cost * limit.window / limit.capacity) end
  end
  if rest > 0 then call('HSET', RES, 'rest:' .. name, now + math.ceil(rest)) end
end

-- What a watcher's unclaimed batches leave of its share: one batch or two flush intervals.
local function share_of(limit, o)
  if o.on == 0 or limit.dimension > 1 then return math.huge end
  local sharing = math.max(1, call('ZCARD', RING) + call('ZCARD', BACK))
  return 2 * limit.per_flush / sharing - o.oc
end

-- Milliseconds until there is room for the costs; nil when there is.
local function wait_for_room(costs)
  local wait
  for _, limit in ipairs(limits) do
    local lacking = (costs[limit.dimension] or 0) - limit.room
    if lacking > 0 then
      local until_then = wait_for(limit, lacking)
      wait = (until_then < 0 or wait == -1) and -1 or math.max(wait or 0, until_then)
    end
  end
  return wait
end

-- Milliseconds until there is credit; nil when there is. Cut by credit, a batch is half of a full
-- one at least: no crumbs.
local function wait_for_credit(costs, o)
  local wait
  for _, limit in ipairs(limits) do
    local need = costs[limit.dimension] or 0
    if limit.dimension == 1 and o.cost > limit.credit then
      local full = math.min(limit.per_flush, o.max_batch_size * o.cost / o.n)
      need = math.max(need, full / 2)
    end
    if need > limit.credit then
      local until_then = math.ceil((need - limit.credit) * limit.window / limit.capacity)
      wait = math.max(wait or 1, until_then)
    end
  end
  return wait
end

-- Budget by dimension for a batch of watcher `o` whose first operation has these costs; or nil,
-- reason, milliseconds. 'park': this watcher has to wait for something other than the capacity of
-- now; 'later': until the capacity has come back.
local function allow(class, costs, o, name, flush_ms)
  if exceeds_capacity(costs) then return nil, 'later' end
  earn(class, costs, name, flush_ms)
  local others = need_of_others(name)
  local budget, has_credit = {}, true
  for _, limit in ipairs(limits) do
    local d = limit.dimension
    local share = share_of(limit, o)
    if (costs[d] or 0) > share then return nil, 'park' end
    limit.room = free(limit) - (others[d] or 0)
    budget[d] = math.min(budget[d] or math.huge, limit.credit, limit.room, share)
    has_credit = has_credit and (costs[d] or 0) <= limit.credit
  end
  local wait = wait_for_room(costs)
  if wait then
    if has_credit then note(name, costs, flush_ms) end
    return nil, 'capacity', wait
  end
  wait = wait_for_credit(costs, o)
  if wait then return nil, 'credit', wait end
  satisfied(name, costs)
  return budget
end
