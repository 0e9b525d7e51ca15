-- Reading what waits in the order in which it is released, and leaving it as it is.
local w, found = ARGV[3], {}
local room = { n = tonumber(ARGV[4]), bytes = tonumber(ARGV[5]) }
local TURN, GROUPS, KEYS_AT_ONCE = 10, 100, 1000 -- TURN as in cutting.lua

local function has_room() return room.n > 0 and room.bytes > 0 end

local function see(data, entry)
  found[#found + 1] = string.sub(data, entry.at, entry.at + entry.bytes - 1)
  room.n, room.bytes = room.n - 1, room.bytes - entry.bytes
end

local function see_group(data)
  for _, single in ipairs(open_group(open_block(data))) do
    if has_room() then see(single, read_entry(single, BLOCK_SIZE + 1)) end
  end
end

-- What reads the operations of a key, one after the other: `block` is where it is.
local function reader(prio, key)
  return { prio = prio, key = key, returned = true, rank = 0 }
end

-- The reader's next operation; nil when there is none.
local function next_entry(r)
  while not r.block or r.block.n == 0 do
    local data, taken
    if r.returned then
      data = call('ZRANGE', returned_key(w, r.prio, r.key), r.rank, r.rank)[1]
    else
      data = call('LINDEX', queue_key(w, r.prio, r.key), r.rank)
      taken = r.rank == 0 and call('HGET', taken_key(w, r.prio), r.key)
    end
    r.rank = r.rank + 1
    if data then
      r.block = open_block(data, taken)
    elseif r.returned then
      r.returned, r.rank = false, 0
    else
      return nil
    end
  end
  return read_entry(r.block.data, r.block.at)
end

-- One turn of a key: so many operations of so much weight. Returns its weight, and whether more wait.
local function see_turn(r, most, heaviest)
  local n, weight, entry = 0, 0, next_entry(r)
  while entry and has_room() and n < most do
    local counts = weigh(entry.cost)
    if n > 0 and weight + counts > heaviest then break end
    see(r.block.data, entry)
    n, weight = n + 1, weight + counts
    r.block.n, r.block.at = r.block.n - 1, r.block.at + entry.bytes
    entry = next_entry(r)
  end
  return weight, entry ~= nil
end

local function goes_before(a, b)
  if a.tag ~= b.tag then return a.tag < b.tag end
  return barrier().precedes(a.key, b.key)
end

-- The keys of a priority in turns, as `cut` serves them; `time` is the virtual time of their ring.
local function see_in_turns(prio, time, heaviest)
  local ring, keys = call('ZRANGE', ring_key(w, prio), 0, KEYS_AT_ONCE - 1, 'WITHSCORES'), {}
  for i = 1, #ring, 2 do
    if not key_waits(w, ring[i]) then
      keys[#keys + 1] = reader(prio, ring[i])
      keys[#keys].tag = tonumber(ring[i + 1])
    end
  end
  while #keys > 0 and has_room() do
    local key = table.remove(keys, 1)
    time = math.max(key.tag, time)
    local weight, more = see_turn(key, TURN, heaviest)
    key.tag = time + weight
    if more then
      local at = 1
      while keys[at] and goes_before(keys[at], key) do at = at + 1 end
      table.insert(keys, at, key)
    end
  end
end
