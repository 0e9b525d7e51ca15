-- How much of the capacity the batch at hand may take.

-- Credit earned since the last release: kept with the resource, capped at two flush intervals or at
-- the cost of the operation at the head and of what others need before it, so that a dear one can
-- save up; at first it is that of one flush interval, or of one operation. What charges gave back is on
-- top of that. It is no less than what a batch of any other needs: else two that are dear in different
-- dimensions would each cut off what the other one saves.
local function earn(costs, others, greatest, flush_ms)
  local since, fields = call('HGET', RES, 'credit_ms'), { 'credit_ms', now }
  for n, limit in ipairs(limits) do
    local d = limit.dimension
    limit.per_flush = limit.capacity * flush_ms / limit.window
    local credit = since and num(RES, nth('credit', n)) + limit.capacity * (now - since) / limit.window
      or math.max(limit.per_flush, costs[d] or 0)
    local most = math.max(2 * limit.per_flush, (costs[d] or 0) + (others[d] or 0), greatest[d] or 0)
    limit.earned = math.max(0, math.min(credit, most))
    limit.refund = num(RES, nth('refund', n))
    limit.credit = limit.earned + limit.refund - (others[d] or 0)
    fields[#fields + 1], fields[#fields + 2] = nth('credit', n), text(limit.earned)
  end
  call('HSET', RES, unpack(fields))
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
local function wait_for_credit(standing, costs, o)
  local wait
  for _, limit in ipairs(limits) do
    local need = costs[limit.dimension] or 0
    if limit.dimension == 1 and standing.rank > 0 and o.cost > limit.credit then
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
local function allow(standing, costs, o, flush_ms)
  if exceeds_capacity(costs) then return nil, 'later' end
  local budget, others, greatest = {}, need_before(standing)
  earn(costs, others, greatest, flush_ms)
  for _, limit in ipairs(limits) do
    local d, share = limit.dimension, share_of(limit, o)
    if (costs[d] or 0) > share then return nil, 'park' end
    limit.room = free(limit) - (others[d] or 0)
    budget[d] = math.min(budget[d] or math.huge, limit.credit, limit.room, share,
      most_of(standing, limit))
  end
  local reason, wait = 'capacity', wait_for_room(costs)
  if not wait then
    reason, wait = 'credit', wait_for_credit(standing, costs, o)
  end
  if wait then
    note_need(standing, costs, o, flush_ms)
    return nil, reason, wait
  end
  return budget
end
