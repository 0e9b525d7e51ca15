-- Blocks and the entries in them: wire.py has both layouts.
local BLOCK, BLOCK_SIZE = '>I8I4I4I8I8', 32 -- sequence, operations, bytes, cost, weight
local ENTRY, ENTRY_SIZE = '>I4BBBBHI8I8BH', 29 -- size, version, flags, priority, name, attempt,
-- cost, enqueued_ms, id, key; then these four: name, id, key, payload

local function pack_block(sequence, n, cost, weight, entries)
  return struct.pack(BLOCK, sequence, n, #entries, cost, weight) .. entries
end

local function open_block(data)
  local sequence, n, bytes, cost, weight = struct.unpack(BLOCK, data)
  return { data = data, sequence = sequence, n = n, bytes = bytes, cost = cost, weight = weight }
end

-- The entry that begins at a place in these bytes, and where the next one does.
local function read_entry(data, at)
  local size, _, flags, prio, name, attempt, cost, enqueued, id, key =
    struct.unpack(ENTRY, data, at)
  return { at = at, bytes = size + 4, flags = flags, prio = prio, attempt = attempt, cost = cost,
    enqueued = enqueued, single = flags % 2 == 0, registered = math.floor(flags / 2) % 2 == 1,
    id_at = at + ENTRY_SIZE + name, id = id, key = key }, at + 4 + size
end

local function id_of(data, entry)
  return string.sub(data, entry.id_at, entry.id_at + entry.id - 1)
end

local function key_of(data, entry)
  local at = entry.id_at + entry.id
  return string.sub(data, at, at + entry.key - 1)
end

-- What an operation counts in fairness.
local function weigh(cost) return cost > 0 and cost or 1 end
