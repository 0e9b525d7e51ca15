-- Looking for an operation: each part goes on from the cursor until its room is used.
local ID, HEADS, W = ARGV[3], ARGV[4] == 'heads', ARGV[5]
local cursor = ARGV[6] ~= '' and cjson.decode(ARGV[6]) or {}
local room = { elements = tonumber(ARGV[7]), bytes = tonumber(ARGV[8]) }
local looked, over, found = 0, false, nil
local PAGE, size = 32, 4 -- elements read at once, at most and next time

local function has_room() return room.elements > 0 and room.bytes > 0 end

-- A page was read: the next one is larger, or smaller where elements are large.
local function leave_page(page)
  local bytes = 0
  for _, element in ipairs(page) do bytes = bytes + #element end
  room.elements, room.bytes = room.elements - #page - 0.5, room.bytes - bytes
  local fit = bytes > 0 and math.floor(room.bytes * #page / bytes) or PAGE
  size = math.max(1, math.min(2 * size, PAGE, fit))
end

-- The entry of the operation among n that lie end to end, what comes before it, and their cost.
local function find_entry(data, at, n)
  looked = looked + n
  if not string.find(data, ID, at, true) then return end
  local cost = 0
  for before = 0, n - 1 do
    local entry, stop = read_entry(data, at)
    if id_of(data, entry) == ID then return string.sub(data, at, stop - 1), before, cost end
    at, cost = stop, cost + entry.cost
  end
end

-- The same in the block of a single operation or a group (together.lua).
local function find_together(data)
  local group = open_block(data)
  if group.n == 1 then return find_entry(data, group.at, 1) end
  local cost = 0
  for before, single in ipairs(open_group(group)) do
    local block = open_block(single)
    local entry = find_entry(single, block.at, 1)
    if entry then return entry, before - 1, cost end
    cost = cost + block.cost
  end
end

local function seek_batches()
  if not cursor.ids then
    cursor.ids, cursor.at = call('ZRANGE', OPEN, 0, 999), 0
    for _, id in ipairs(call('ZRANGE', CLAIMED, 0, 999)) do table.insert(cursor.ids, id) end
  end
  local id = cursor.ids[1]
  if not id then
    over = true
    return
  end
  local blocks = call('LRANGE', blocks_key(id), cursor.at, cursor.at + size - 1)
  for _, data in ipairs(blocks) do
    local block = open_block(data)
    local entry = find_entry(data, block.at, block.n)
    local b = call('HMGET', batch_key(id), 'watcher', 'state', 'deadline')
    if entry and b[1] then
      local running = b[2] == 'claimed'
      found = { state = running and 'running' or 'released', w = b[1], entry = entry, batch = id,
        ms = running and b[3] - now or now - call('ZSCORE', OPEN, id) }
      return
    end
  end
  cursor.at = cursor.at + #blocks
  if #blocks < size then
    table.remove(cursor.ids, 1)
    cursor.at = 0
  end
  leave_page(blocks)
end

-- To the next region of the watcher's queues: groups, then by priority and key what came back and
-- what arrived. False when there is none.
local function next_region()
  cursor.at, cursor.last = 0, nil
  if not cursor.region then
    cursor.region, cursor.prio, cursor.n, cursor.cost = 's', 0, '0', '0'
    return true
  elseif cursor.region == 'r' then
    cursor.region = 'q'
    return true
  end
  cursor.region, cursor.n, cursor.cost = 'r', '0', '0'
  local after = cursor.key and '(' .. cursor.key or '-'
  while cursor.prio < PRIORITIES do
    local names = names_key(W, cursor.prio)
    cursor.key = call('ZRANGEBYLEX', names, after, '+', 'LIMIT', 0, 1)[1]
    if cursor.key then return true end
    cursor.prio, after = cursor.prio + 1, '-'
  end
  return false
end

-- Arrived blocks after the last that was seen. Blocks left the front meanwhile when the one before
-- the cursor is a later one: go back until it is not.
local function arrived_page(queue, most)
  local back = 1
  while cursor.at > 0 do
    local data = call('LINDEX', queue, cursor.at - 1)
    if data and open_block(data).sequence <= tonumber(cursor.last) then break end
    cursor.at, back = math.max(0, cursor.at - back), 2 * back
  end
  local page = call('LRANGE', queue, cursor.at, cursor.at + most - 1)
  cursor.at = cursor.at + #page
  return page
end

local function see_waiting(data, first)
  local block = open_block(data)
  local last = tonumber(cursor.last)
  if last and block.sequence <= last then return end
  cursor.last = text(block.sequence)
  if first then block = open_block(data, call('HGET', taken_key(W, cursor.prio), cursor.key)) end
  local entry, n, cost
  if cursor.region == 's' then
    entry, n, cost = find_together(data)
  else
    entry, n, cost = find_entry(data, block.at, block.n)
  end
  if entry then
    found = { state = 'waiting', w = W, entry = entry, n = cursor.n + n, cost = cursor.cost + cost }
  else
    cursor.n, cursor.cost = text(cursor.n + block.n), text(cursor.cost + block.cost)
  end
end

local function seek_waiting()
  if not cursor.region then next_region() end
  local arrived, most, page = cursor.region == 'q', HEADS and 1 or size, nil
  if arrived then
    page = arrived_page(queue_key(W, cursor.prio, cursor.key), most)
  else
    local key = cursor.region == 's' and together_key(W) or returned_key(W, cursor.prio, cursor.key)
    local after = cursor.last and '(' .. cursor.last or '-inf'
    page = call('ZRANGEBYSCORE', key, after, '+inf', 'LIMIT', 0, most)
  end
  local begins = arrived and cursor.at == #page
  for i, data in ipairs(page) do
    if not found then see_waiting(data, begins and i == 1) end
  end
  leave_page(page)
  if HEADS and cursor.region == 'r' and #page > 0 then cursor.region = 'q' end -- not its head
  if HEADS or #page < most then over = not next_region() end
end

-- From the end on: what is due leaves the front, and nothing is missed.
local function seek_delayed()
  cursor.at = cursor.at or 0
  local page = call('ZREVRANGE', LATER, cursor.at, cursor.at + size - 1)
  for _, member in ipairs(page) do
    local name = struct.unpack('>I2', member)
    local entry = find_together(string.sub(member, 3 + name))
    if entry then
      found = { state = 'delayed', w = string.sub(member, 3, 2 + name), entry = entry,
        ms = math.max(0, call('ZSCORE', LATER, member) - now) }
      return
    end
  end
  cursor.at, over = cursor.at + #page, #page < size
  leave_page(page)
end

local function seek_dead()
  local after = cursor.last and '(' .. cursor.last or '-inf'
  local page = call('ZRANGEBYSCORE', dead_key(W), after, '+inf', 'LIMIT', 0, size)
  for _, letter in ipairs(page) do
    local number, at, reason = struct.unpack(LETTER, letter)
    local entry = find_entry(letter, LETTER_SIZE + 1 + reason, 1)
    cursor.last = text(number)
    if entry then
      found = { state = 'dead', w = W, entry = entry, ms = now - at,
        reason = string.sub(letter, LETTER_SIZE + 1, LETTER_SIZE + reason) }
      return
    end
  end
  over = #page < size
  leave_page(page)
end
