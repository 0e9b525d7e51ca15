-- Arrived operations gather in blocks, by watcher, priority and key, and are appended to their
-- queues at the end.
local staging = {}

local function begin(w)
  staging[w] = staging[w] or { [0] = {}, {}, {} }
end

-- piece: priority, operations, cost, weight, bytes, 1 if unbatchable, offset and size of the key,
-- offset and size of the id if it is registered, dedupe_ms if it is deduplicated. `at` is where its
-- entries begin in `data`.
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

-- Whether an operation that is registered may wait: no other with its id lives, nor came so lately that
-- it is a duplicate. What is dropped for a time is forgotten when that is over: twice as much a call
-- as is noted.
local DEDUPED = BASE .. 'deduped'
local noted = 0
local function register(id, dedupe_ms)
  if dedupe_ms then
    local until_ms = tonumber(call('ZSCORE', DEDUPED, id))
    if until_ms and until_ms > now then return false end
  end
  if call('SADD', IDS, id) == 0 then return false end
  if dedupe_ms and dedupe_ms > 0 then
    call('ZADD', DEDUPED, now + dedupe_ms, id)
    noted = noted + 1
  end
  return true
end

local function forget_deduped(most)
  if most == 0 then return end
  local over = call('ZRANGEBYSCORE', DEDUPED, '-inf', now, 'LIMIT', 0, most)
  if #over > 0 then call('ZREM', DEDUPED, unpack(over)) end
end

-- The pieces of a message gather, but for duplicates. Returns how many these are.
local function take(w, pieces, data, at, most, most_bytes)
  local dropped = 0
  for _, piece in ipairs(pieces) do
    local id_at, id_size = piece[9], piece[10]
    if id_at and not register(string.sub(data, at + id_at, at + id_at + id_size - 1), piece[11]) then
      dropped = dropped + 1
    else
      gather(w, piece, data, at, most, most_bytes)
    end
    at = at + piece[5]
  end
  return dropped
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
  forget_deduped(math.min(2 * noted, 1000))
  return staged
end
