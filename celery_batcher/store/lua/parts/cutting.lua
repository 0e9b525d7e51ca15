-- Cutting a batch out of a watcher's queues, in order of priority, keys in turns.

local MAX_BYTES, RUN = 1048576, 10 -- bytes of a batch; average operations of a key's turn

local function read_watcher(w)
  local names = { 'n', 'cost', 'on', 'oc', 'max_batch_size', 'weight', 'by_key', 'probe',
    'n0', 'n1', 'n2', 'v0', 'v1', 'v2' }
  local values, o = call('HMGET', watcher_key(w), unpack(names)), {}
  for i, name in ipairs(names) do o[name] = tonumber(values[i]) or 0 end
  if o.max_batch_size == 0 then o.max_batch_size = 500 end
  if o.weight == 0 then o.weight = 1 end
  return o
end

-- Stored entries at the head of a key's queue: what came back, before what arrived.
local function peek(w, prio, key, n)
  local entries = call('ZRANGE', returned_key(w, prio, key), 0, n - 1)
  if #entries > 0 then return entries, true end
  return call('LRANGE', queue_key(w, prio, key), 0, n - 1), false
end

-- Where the next operation of a watcher is; keys that have run empty leave their ring.
local function front(w, o)
  for prio = 0, PRIORITIES - 1 do
    while o['n' .. prio] > 0 do
      local top = call('ZRANGE', ring_key(w, prio), 0, 0, 'WITHSCORES')
      if #top == 0 then break end
      local entry = peek(w, prio, top[1], 1)[1]
      if entry then
        local _, _, _, cost = parse(entry)
        return { prio = prio, key = top[1], cost = cost, bytes = #entry,
          tag = math.max(tonumber(top[2]), o['v' .. prio]) }
      end
      call('ZREM', ring_key(w, prio), top[1])
    end
  end
end

-- Take one run of a key. Sets batch.stop when the batch is complete.
local function take(w, head, batch, size, budget, run_cost)
  local spent, left = 0, size - batch.n
  local fit = head.cost > 0 and math.floor((budget - batch.cost) / head.cost) + 1 or left
  local want = math.max(1, math.min(left, fit, run_cost and RUN or left,
    math.ceil(MAX_BYTES / head.bytes)))
  local entries, returned = peek(w, head.prio, head.key, want)
  local taken = 0
  for _, entry in ipairs(entries) do
    local _, _, _, flags, _, _, _, cost, enqueued = struct.unpack('>I8I4BBBBHI8I8', entry)
    local single = flags % 2 == 0
    if batch.cost + cost > budget then batch.stop = 'capacity' break end
    if batch.n > 0 and batch.bytes + #entry > MAX_BYTES then batch.stop = 'size' break end
    if single and batch.n > 0 then batch.stop = 'interval' break end
    if run_cost and taken > 0 and spent + weigh(cost) > run_cost then break end
    taken, spent = taken + 1, spent + weigh(cost)
    batch.n, batch.cost, batch.bytes = batch.n + 1, batch.cost + cost, batch.bytes + #entry
    batch.weight = batch.weight + weigh(cost)
    batch.oldest = math.min(batch.oldest, enqueued)
    batch[batch.n] = entry
    local at = 'n' .. head.prio
    batch[at] = (batch[at] or 0) + 1
    if single then batch.stop = 'single' break end
  end
  if taken > 0 then
    if returned then
      call('ZREM', returned_key(w, head.prio, head.key), unpack(entries, 1, taken))
    else
      call('LTRIM', queue_key(w, head.prio, head.key), taken, -1)
    end
  end
  return spent
end

local function cut(w, o, budget)
  local size = o.probe == 1 and 1 or o.max_batch_size
  local batch = { n = 0, cost = 0, bytes = 0, weight = 0, oldest = now }
  while batch.n < size and not batch.stop do
    local head = front(w, o)
    if not head then break end
    local alone = call('ZCARD', ring_key(w, head.prio)) == 1
    local run_cost = not alone and RUN * o.cost / math.max(1, o.n) or nil
    local before = batch['n' .. head.prio] or 0
    local spent = take(w, head, batch, size, budget, run_cost)
    local moved = (batch['n' .. head.prio] or 0) - before
    o['v' .. head.prio] = head.tag
    o['n' .. head.prio] = o['n' .. head.prio] - moved
    call('ZADD', ring_key(w, head.prio), head.tag + spent, head.key)
    if o['n' .. head.prio] == 0 then call('UNLINK', ring_key(w, head.prio)) end
    if o.by_key == 1 then batch.stop = batch.stop or 'interval' end
  end
  batch.trigger = batch.n >= size and 'size' or batch.stop or 'interval'
  return batch
end

-- Enter a batch in the ledger with its hold; its watcher moves on in the ring.
local function record(id, w, tag, o, batch, limited)
  call('SET', entries_key(id), table.concat(batch))
  call('HSET', batch_key(id), 'watcher', w, 'n', batch.n, 'cost', batch.cost, 'trigger',
    batch.trigger, 'oldest', batch.oldest, 'released', now, 'state', 'open', 'offers', 0,
    'probe', o.probe, 'held', limited and 1 or 0)
  call('ZADD', OPEN, now, id)
  call('ZADD', OFFERS, now, id)
  for prio = 0, PRIORITIES - 1 do
    add(watcher_key(w), 'n' .. prio, -(batch['n' .. prio] or 0))
    call('HSET', watcher_key(w), 'v' .. prio, text(o['v' .. prio]))
  end
  if limited then
    add(RES, 'open', batch.cost)
    call('HSET', RES, 'credit', text(num(RES, 'credit') - batch.cost))
  end
  local moved = tag + batch.weight / o.weight
  for name, n in pairs({ n = -batch.n, cost = -batch.cost, on = 1, oc = batch.cost }) do
    add(watcher_key(w), name, n)
  end
  for name, n in pairs({ waiting = -batch.n, waiting_cost = -batch.cost, open_batches = 1,
    open = batch.n, open_cost = batch.cost }) do
    add(META, name, n)
  end
  call('HSET', watcher_key(w), 'tag', text(moved))
  call('HSET', META, 'vtime', text(tag))
  call('ZREM', RING, w)
  reindex(w)
  return { w, batch.n, batch.cost, batch.trigger, batch.oldest }
end
