-- How much of the capacity the batch at hand may take.

-- A head in need: an operation that waits for more room or credit than there is. Until it has it,
-- batchers other than its own leave it that much. Afterwards its batcher may have no such note
-- for as long as its cost takes to earn, so that the others have their time, too.
local function need_of_others()
  local noted = call('HGET', RES, 'head')
  if not noted or noted == ARGV[10] or num(RES, 'head_until') <= now then return 0 end
  return num(RES, 'head_cost')
end

local function note(head_cost)
  if need_of_others() > 0 or num(RES, 'rest:' .. ARGV[10]) > now then return end
  call('HSET', RES, 'head', ARGV[10], 'head_cost', head_cost,
    'head_until', now + math.max(500, 3 * tonumber(ARGV[7])))
end

local function satisfied(head_cost, capacity)
  if call('HGET', RES, 'head') ~= ARGV[10] then return end
  call('HDEL', RES, 'head', 'head_cost', 'head_until')
  if head_cost > 0 then
    call('HSET', RES, 'rest:' .. ARGV[10], now + math.ceil(head_cost * ARGV[6] / capacity))
  end
end

-- Credit earned since the last release: kept with the resource, capped at two flush intervals or
-- at the cost of the operation at the head, so that a dear one can save up.
local function earn(capacity, head_cost)
  local window_ms, flush_ms = tonumber(ARGV[6]), tonumber(ARGV[7])
  local per_flush = capacity * flush_ms / window_ms
  local since = call('HGET', RES, 'credit_ms')
  local credit = since and num(RES, 'credit') + capacity * (now - since) / window_ms or per_flush
  credit = math.max(0, math.min(credit, math.max(2 * per_flush, head_cost)))
  call('HSET', RES, 'credit', text(credit), 'credit_ms', now)
  return credit, per_flush
end

-- Budget for a batch of watcher `o` whose first operation costs `head_cost`; or nil, reason,
-- milliseconds. 'park': this watcher has to wait for something other than the capacity of now.
local function allow(head_cost, o)
  local capacity = num(RES, 'capacity')
  if head_cost > capacity then return nil, 'park' end
  local others = need_of_others()
  local credit, per_flush = earn(capacity, math.max(head_cost, others))
  local share = math.huge
  if o.on > 0 then share = 2 * per_flush / math.max(1, call('ZCARD', RING)) - o.oc end
  if head_cost > share then return nil, 'park' end
  local room = capacity - num(RES, 'held') - num(RES, 'open') - others
  credit = credit - others
  if head_cost > math.min(room, credit) then note(head_cost) end
  if head_cost > room then
    return nil, 'capacity', wait_for(head_cost - room)
  end
  local need = head_cost
  if o.cost > credit then -- cut by credit, a batch is half of a full one at least: no crumbs
    local full = math.min(per_flush, o.max_batch_size * o.cost / o.n)
    need = math.max(need, full / 2)
  end
  if need > credit then
    return nil, 'credit', math.max(1, math.ceil((need - credit) * ARGV[6] / capacity))
  end
  satisfied(head_cost, capacity)
  return math.min(credit, room, share)
end
