-- Cutting a batch out of a watcher's queues, in order of priority, keys in turns. Whole blocks move
-- as they are; where a batch or a key's turn ends within one, the block stays and what was taken
-- of it is noted.

local MAX_BYTES, TURN = 1048576, 10 -- bytes of a batch; average operations of a key's turn

-- The first group whose key is not at its cap.
local function first_group(w, o)
  while o.ns > 0 do
    local last = '(' .. text(ASIDE_FROM)
    local data = call('ZRANGEBYSCORE', together_key(w), '-inf', last, 'LIMIT', 0, 1)[1]
    if not data then return nil end
    local head = head_of_group(data)
    head.room = room_of_key(w, o, head.key, head.costs[1])
    if head.room then return head end
    set_group_aside(w, head.key, head.together)
  end
end

-- A key at its cap leaves the ring, which goes on as if it had been served.
local function pass_over(w, o, prio, key, tag)
  o['v' .. prio], times[ring_key(w, prio)] = tag, tag
  call('HSET', watcher_key(w), 'v' .. prio, text(tag))
  call('ZREM', ring_key(w, prio), key)
end

-- Where the next operation of a watcher is, of those that are urgent (1) or of back-fills (2); keys
-- that have run empty leave their ring.
local function front(w, o, class)
  local group = class == 1 and first_group(w, o)
  if group then return group end
  for prio = class == 2 and BACKFILL or 0, class == 1 and BACKFILL - 1 or BACKFILL do
    while o['n' .. prio] > 0 do
      local top = call('ZRANGE', ring_key(w, prio), 0, 0, 'WITHSCORES')
      if #top == 0 then break end
      local block = first_block(w, prio, top[1])
      if block then
        local head = head_of_key(prio, top[1], block)
        head.tag = math.max(tonumber(top[2]), o['v' .. prio])
        head.room = room_of_key(w, o, head.key, head.costs[1], class)
        if head.room then return head end
        pass_over(w, o, prio, head.key, head.tag)
      else
        drop_key(w, prio, top[1])
      end
    end
  end
end

-- Whether an operation with these costs would be more than what a batch may cost.
local function exceeds(batch, costs)
  for d, most in ipairs(batch.budget) do
    if (batch.costs[d] or 0) + (costs[d] or 0) > most then return true end
  end
  return false
end

local function count_costs(batch, costs)
  for d = 1, #batch.budget do batch.costs[d] = (batch.costs[d] or 0) + (costs[d] or 0) end
end

-- What a batch and a key's turn have taken, by n operations more.
local function count_taken(batch, turn, n, costs, weight, bytes)
  batch.n, batch.bytes, batch.weight = batch.n + n, batch.bytes + bytes, batch.weight + weight
  count_costs(batch, costs)
  turn.n, turn.weight = turn.n + n, turn.weight + weight
end

-- Whether a whole block fits: what its entries would be asked one by one, asked of their sums. A
-- block has no sums of further dimensions.
local function fits(block, batch, turn)
  return block.n > 1 and #batch.budget == 1 and batch.n + block.n <= batch.size
    and batch.costs[1] + block.cost <= batch.budget[1]
    and batch.bytes + block.bytes <= MAX_BYTES
    and (not turn.most or (turn.n + block.n <= TURN and turn.weight + block.weight <= turn.most))
end

-- How many of a block's operations fit, their bytes, cost and weight. Sets batch.stop when the
-- batch is complete.
local function measure(block, batch, turn)
  local n, cost, weight, at = 0, 0, 0, block.at
  while n < block.n and batch.n < batch.size and not batch.stop do
    if turn.most and turn.n >= TURN then break end
    local entry, stop = read_entry(block.data, at)
    local costs = costs_of(block.data, entry)
    if exceeds(batch, costs) then batch.stop = 'capacity' break end
    if batch.n > 0 and batch.bytes + entry.bytes > MAX_BYTES then batch.stop = 'size' break end
    if entry.single and batch.n > 0 then batch.stop = 'interval' break end
    local counts = weigh(entry.cost)
    if turn.most and turn.n > 0 and turn.weight + counts > turn.most then break end
    count_taken(batch, turn, 1, costs, counts, entry.bytes)
    n, cost, weight, at = n + 1, cost + entry.cost, weight + counts, stop
    if entry.single then batch.stop = 'single' end
  end
  return n, at - block.at, cost, weight
end

-- The first operations of a block, as a block.
local function part_of(block, n, bytes, cost, weight)
  local entries = string.sub(block.data, block.at, block.at + bytes - 1)
  return pack_block(block.sequence, n, cost, weight, entries)
end

-- Move the first block of a key's queue, or what is left of it, into the batch.
local function move(w, head, block, batch)
  local queue, blocks = queue_key(w, head.prio, head.key), blocks_key(batch.id)
  if walks('waiting', w) then barrier().note_left(w, head.prio, head.key, block) end
  if block.returned then
    call('ZREM', returned_key(w, head.prio, head.key), block.data)
    call('RPUSH', blocks, block.data)
  elseif block.taken[1] == 0 then
    call('LMOVE', queue, blocks, 'LEFT', 'RIGHT')
  else
    call('RPUSH', blocks, part_of(block, block.n, block.bytes, block.cost, block.weight))
    call('LPOP', queue)
    call('HDEL', taken_key(w, head.prio), head.key)
  end
end

-- Move the first operations of that block. What came back lies in blocks of one operation, so it
-- is a block of what arrived.
local function move_part(w, head, block, batch, ...)
  if walks('waiting', w) then
    local n, _, cost = ...
    barrier().note(head.prio, head.key, 'q', 0, 0, -n, -cost)
  end
  call('RPUSH', blocks_key(batch.id), part_of(block, ...))
  local taken = {}
  for i, number in ipairs({ ... }) do taken[i] = text(block.taken[i] + number) end
  call('HSET', taken_key(w, head.prio), head.key, table.concat(taken, ' '))
end

-- One turn of a key; `most` is the weight it may have, or nil. Returns what it took.
local function take(w, head, batch, most)
  local turn, block = { n = 0, weight = 0, most = most }, head.block
  while block and batch.n < batch.size and not batch.stop do
    if fits(block, batch, turn) then
      count_taken(batch, turn, block.n, { block.cost }, block.weight, block.bytes)
      move(w, head, block, batch)
    else
      local n, bytes, cost, weight = measure(block, batch, turn)
      if n < block.n then
        if n > 0 then move_part(w, head, block, batch, n, bytes, cost, weight) end
        return turn
      end
      move(w, head, block, batch)
    end
    if batch.n == batch.size or (most and turn.n >= TURN) then return turn end
    block = first_block(w, head.prio, head.key, not block.returned)
    if not block then call('ZREM', names_key(w, head.prio), head.key) end
  end
  return turn
end

-- A group makes a batch of its own; what does not fit waits for the next, together.
local function take_together(w, o, group, key, batch)
  local rest, cost = {}, 0
  if walks('waiting', w) then
    barrier().note(PRIORITIES, '', 's', group.data, -1, -group.n, -group.cost, together_key(w))
  end
  call('ZREM', together_key(w), group.data)
  for _, single in ipairs(open_group(group)) do
    local one = open_block(single)
    local entry = read_entry(single, one.at)
    local costs, fits_key = costs_of(single, entry), not capped(o) or key_of(single, entry) == key
    if #rest == 0 and batch.n < batch.size and fits_key and not exceeds(batch, costs) then
      call('RPUSH', blocks_key(batch.id), single)
      count_taken(batch, { n = 0, weight = 0 }, 1, costs, one.weight, one.bytes)
    else
      rest[#rest + 1], cost = single, cost + one.cost
    end
  end
  count_waiting(w, 's', -#rest, -cost)
  keep_together(w, rest, 0)
  wake_group(w, key)
  batch.taken.s, batch.stop = batch.n, 'bisect'
end

local function cut(id, w, o, budget, class)
  local size = o.probe == 1 and 1 or o.max_batch_size
  local batch = { id = id, class = class, size = size, budget = budget, n = 0, costs = { 0 },
    bytes = 0, weight = 0, oldest = now, taken = { [0] = 0, 0, 0, s = 0 } }
  local mean = o.cost / math.max(1, o.n)
  local had_caps = class == 1 and call('EXISTS', key_sums(w)) == 1
  while batch.n < size and not batch.stop do
    local head = front(w, o, class)
    if not head then break end
    batch.key = capped(o) and head.key ~= '' and head.key or nil
    if had_caps then let_backfills_go(w, head.key) end
    if head.together then
      batch.oldest = head.enqueued
      take_together(w, o, head.together, head.key, batch)
      break
    end
    local prio = head.prio
    local alone = call('ZCARD', ring_key(w, prio)) == 1
    local turn = take(w, head, batch, not alone and TURN * mean or nil)
    if turn.n > 0 then batch.oldest = math.min(batch.oldest, head.enqueued) end
    batch.taken[prio] = batch.taken[prio] + turn.n
    o['v' .. prio] = head.tag
    o['n' .. prio] = o['n' .. prio] - turn.n
    call('ZADD', ring_key(w, prio), head.tag + turn.weight, head.key)
    if o['n' .. prio] == 0 then call('UNLINK', ring_key(w, prio)) end
    if o.by_key == 1 then batch.stop = batch.stop or 'interval' end
  end
  local full = batch.n >= size and batch.stop ~= 'bisect'
  batch.trigger = full and 'size' or batch.stop or 'interval'
  return batch
end

-- Enter a batch in the ledger with its hold; its watcher moves on in the ring.
local function record(w, tag, o, batch, standing)
  local id, cost = batch.id, batch.costs[1]
  local costs = #batch.costs > 1 and pack_costs(batch.costs) or nil
  if costs then call('HSET', batch_key(id), 'costs', costs) end
  call('HSET', batch_key(id), 'watcher', w, 'n', batch.n, 'cost', text(cost), 'trigger',
    batch.trigger, 'oldest', batch.oldest, 'released', now, 'state', 'open', 'offers', 0,
    'probe', o.probe, 'held', standing and 1 or 0)
  call('ZADD', OPEN, now, id)
  call('ZADD', OFFERS, now, id)
  meters.count_release(w, batch, cost)
  add(watcher_key(w), 'ns', -batch.taken.s)
  for prio = 0, PRIORITIES - 1 do
    add(watcher_key(w), 'n' .. prio, -batch.taken[prio])
    call('HSET', watcher_key(w), 'v' .. prio, text(o['v' .. prio]))
  end
  if batch.key then hold_key(w, o, batch.key, id, cost) end
  if standing then
    hold_open(batch.costs, 1)
    spend(standing, batch.costs)
  end
  local moved = tag + batch.weight / o.weight
  for field, n in pairs({ n = -batch.n, cost = -cost, on = 1, oc = cost }) do
    add(watcher_key(w), field, n)
  end
  for field, n in pairs({ waiting = -batch.n, waiting_cost = -cost, open_batches = 1,
    open = batch.n, open_cost = cost }) do
    add(META, field, n)
  end
  call('HSET', watcher_key(w), nth('tag', batch.class), text(moved))
  call('HSET', META, nth('vtime', batch.class), text(tag))
  call('ZREM', batch.class == 1 and RING or BACK, w)
  reindex(w)
  return { w, batch.n, cost, batch.trigger, batch.oldest, costs }
end
