-- Arrived operations gather in blocks, by watcher, priority and key, and are appended to their
-- queues at the end.
local staging = {}

local function begin(w)
  staging[w] = staging[w] or { [0] = {}, {}, {} }
end

-- piece: priority, operations, cost, weight, bytes, 1 if unbatchable, offset and size of the key,
-- offset and size of the id if it is registered. `at` is where its entries begin in `data`.
local function gather(w, piece, data, at, most, most_bytes)
  local prio, n, cost, weight, bytes, single, key_at, key_size = unpack(piece)
  local key = string.sub(data, at + key_at, at + key_at + key_size - 1)
  local keys = staging[w][prio]
  keys[key] = keys[key] or {}
  local blocks = keys[key]
  local block = blocks[#blocks]
  if not block or single == 1 or block.single or block.n + n > most
    or block.bytes + bytes > most_bytes then
    block = { n = 0, cost = 0, weight = 0, bytes = 0, single = single == 1, entries = {} }
    blocks[#blocks + 1] = block
  end
  block.n, block.cost, block.weight = block.n + n, block.cost + cost, block.weight + weight
  block.bytes = block.bytes + bytes
  block.entries[#block.entries + 1] = string.sub(data, at, at + bytes - 1)
end

-- Append a key's blocks to its queue. Returns operations, cost and how many blocks are in it now.
local function push(queue, blocks, sequence)
  local n, cost, length = 0, 0, 0
  for i, block in ipairs(blocks) do
    local entries = table.concat(block.entries)
    blocks[i] = pack_block(sequence + n, block.n, block.cost, block.weight, entries)
    n, cost = n + block.n, cost + block.cost
  end
  for first = 1, #blocks, 1000 do
    length = call('RPUSH', queue, unpack(blocks, first, math.min(first + 999, #blocks)))
  end
  return n, cost, length
end

local function push_all()
  local sequence, staged = num(META, 'sequence') + 1, 0
  for w, priorities in pairs(staging) do
    local before = staged
    for prio, keys in pairs(priorities) do
      local waiting, waiting_cost = 0, 0
      for key, blocks in pairs(keys) do
        local n, cost, length = push(queue_key(w, prio, key), blocks, sequence + staged)
        if length == #blocks then join(w, prio, key) end -- else it is in there
        if walks('waiting', w) then barrier().note(prio, key, 'q', math.huge, 0, n, cost) end
        staged, waiting, waiting_cost = staged + n, waiting + n, waiting_cost + cost
      end
      count_waiting(w, prio, waiting, waiting_cost)
    end
    meters.add(w, 0, staged - before)
    call('SADD', WATCHERS, w)
    reindex(w)
  end
  add(META, 'sequence', staged)
  return staged
end
