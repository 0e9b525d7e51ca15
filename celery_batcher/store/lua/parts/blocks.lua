-- Blocks and the entries in them: wire/entries.py has both layouts.
local BLOCK, BLOCK_SIZE = '>I8I4I4I8I8', 32 -- sequence, operations, bytes, cost, weight
local ENTRY, ENTRY_SIZE = '>I4BBBBHI8I8BH', 29 -- size, version, flags, priority, name, attempt,
-- cost, enqueued_ms, id, key; then these four: name, id, key, payload
local ALONE = 8 -- the flag of an operation that was alone in a batch that failed
local VECTOR = 16 -- the flag of an operation that has costs in further dimensions

local function has_flag(flags, flag) return math.floor(flags / flag) % 2 == 1 end

local function pack_block(sequence, n, cost, weight, entries)
  return struct.pack(BLOCK, sequence, n, #entries, cost, weight) .. entries
end

-- A block of which so much was taken before: operations, bytes, cost and weight, as text.
-- `at` is where its next entry begins.
local function open_block(data, taken)
  local sequence, n, bytes, cost, weight = struct.unpack(BLOCK, data)
  local block = { data = data, at = BLOCK_SIZE + 1, sequence = sequence, n = n, bytes = bytes,
    cost = cost, weight = weight, taken = { 0, 0, 0, 0 } }
  if taken then
    local i = 0
    for number in string.gmatch(taken, '%d+') do
      i = i + 1
      block.taken[i] = tonumber(number)
    end
    n, bytes, cost, weight = unpack(block.taken)
    block.sequence, block.at, block.n = sequence + n, block.at + bytes, block.n - n
    block.bytes, block.cost, block.weight = block.bytes - bytes, block.cost - cost,
      block.weight - weight
  end
  return block
end

-- The entry that begins at a place in these bytes, and where the next one does.
local function read_entry(data, at)
  local size, _, flags, prio, name, attempt, cost, enqueued, id, key =
    struct.unpack(ENTRY, data, at)
  return { at = at, bytes = size + 4, flags = flags, prio = prio, attempt = attempt, cost = cost,
    enqueued = enqueued, single = flags % 2 == 0 or has_flag(flags, ALONE), registered = has_flag(flags, 2),
    id_at = at + ENTRY_SIZE + name, id = id, key = key }, at + 4 + size
end

local function id_of(data, entry)
  return string.sub(data, entry.id_at, entry.id_at + entry.id - 1)
end

local function key_of(data, entry)
  local at = entry.id_at + entry.id
  return string.sub(data, at, at + entry.key - 1)
end

-- What an operation costs, by dimension: between key and payload is how many further costs it has,
-- and these.
local function costs_of(data, entry)
  local costs = { entry.cost }
  if has_flag(entry.flags, VECTOR) then
    local at = entry.id_at + entry.id + entry.key
    for i = 1, string.byte(data, at) do
      costs[i + 1] = struct.unpack('>I8', data, at + 8 * i - 7)
    end
  end
  return costs
end

-- What an operation counts in fairness.
local function weigh(cost) return cost > 0 and cost or 1 end
