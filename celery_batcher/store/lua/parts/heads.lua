-- A watcher, and the first operations of its keys and groups.

-- `grace` in ms is wanted where its keys' holds are looked at.
local function read_watcher(w, grace)
  local names = { 'n', 'cost', 'on', 'oc', 'max_batch_size', 'weight', 'by_key', 'probe',
    'n0', 'n1', 'n2', 'ns', 'v0', 'v1', 'v2', 'key_window', 'key_concurrency' }
  local values, o = call('HMGET', watcher_key(w), unpack(names)), {}
  for i, name in ipairs(names) do o[name] = tonumber(values[i]) or 0 end
  if o.max_batch_size == 0 then o.max_batch_size = 500 end
  if o.weight == 0 then o.weight = 1 end
  o.grace = grace
  o.key_capacity = tonumber(call('HGET', watcher_key(w), 'key_capacity'))
  return o
end

-- The first block of a key's queue: of what came back, before what arrived (`arrived`: nothing did).
local function first_block(w, prio, key, arrived)
  local returned = not arrived and call('ZRANGE', returned_key(w, prio, key), 0, 0)[1]
  if returned then
    local block = open_block(returned)
    block.returned = true
    return block
  end
  local data = call('LINDEX', queue_key(w, prio, key), 0)
  return data and open_block(data, call('HGET', taken_key(w, prio), key))
end

-- A group's first operation, as a head.
local function head_of_group(data)
  local group = open_block(data)
  local entry = read_entry(data, group.at + BLOCK_SIZE)
  return { together = group, key = key_of(data, entry), costs = costs_of(data, entry),
    room = math.huge, prio = entry.prio, enqueued = entry.enqueued }
end

-- A key's first operation, as a head.
local function head_of_key(prio, key, block)
  local entry = read_entry(block.data, block.at)
  return { prio = prio, key = key, block = block, costs = costs_of(block.data, entry),
    room = math.huge, enqueued = entry.enqueued }
end

local function drop_key(w, prio, key)
  call('ZREM', ring_key(w, prio), key)
  call('ZREM', names_key(w, prio), key)
end
