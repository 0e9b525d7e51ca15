-- Removing operations from the index and from what is delayed: data, registered ids, counters.
local w, left = ARGV[5], tonumber(ARGV[6])
local room = { n = tonumber(ARGV[7]), bytes = tonumber(ARGV[8]) }
local removed, over = 0, false

local function has_room() return room.n > 0 and room.bytes > 0 end

-- Whether so many together may still go: the first may always.
local function may_go(n) return has_room() and (removed == 0 or n <= room.n) end

local function spend(n, bytes)
  removed, room.n, room.bytes = removed + n, room.n - n, room.bytes - bytes
end

-- It may be enqueued again, also within its dedupe_for.
local function forget_id(data, entry)
  if not entry.registered then return end
  local id = id_of(data, entry)
  call('SREM', IDS, id)
  call('ZREM', BASE .. 'deduped', id)
end

-- The operations of a block of one, or of a group, are gone.
local function forget_all(block)
  local singles = block.n == 1 and { block.data } or open_group(block)
  for _, single in ipairs(singles) do forget_id(single, read_entry(single, BLOCK_SIZE + 1)) end
  spend(block.n, block.n == 1 and block.bytes or block.bytes - block.n * BLOCK_SIZE)
end

local function discard_delayed()
  while has_room() do
    local member = call('ZREVRANGE', LATER, left, left)[1]
    if not member then
      over = true
      return
    end
    local size = struct.unpack('>I2', member)
    local owner, block = string.sub(member, 3, 2 + size), open_block(string.sub(member, 3 + size))
    if w ~= '' and owner ~= w then
      left, room.n = left + 1, room.n - 1
    elseif not may_go(block.n) then
      return
    else
      if walks('delayed') then barrier().note_delayed(owner, member, -1, -block.n, -block.cost) end
      call('ZREM', LATER, member)
      count_delayed(owner, -block.n, -block.cost)
      forget_all(block)
    end
  end
end

-- The first group; false when there is none that may go.
local function discard_group()
  local data = call('ZRANGE', together_key(w), 0, 0)[1]
  local group = data and open_block(data)
  if not group or not may_go(group.n) then return false end
  if walks('waiting', w) then
    barrier().note(PRIORITIES, '', 's', data, -1, -group.n, -group.cost, together_key(w))
  end
  call('ZREM', together_key(w), data)
  call('ZREM', aside_key(w, head_of_group(data).key), group.sequence)
  count_waiting(w, 's', -group.n, -group.cost)
  forget_all(group)
  return true
end

-- The first operations of a block, as many as there is room for: how many, their bytes, cost, weight.
local function measure_and_forget(block)
  local n, cost, weight, at = 0, 0, 0, block.at
  while n < block.n and has_room() do
    local entry, stop = read_entry(block.data, at)
    forget_id(block.data, entry)
    spend(1, entry.bytes)
    n, cost, weight, at = n + 1, cost + entry.cost, weight + weigh(entry.cost), stop
  end
  return n, at - block.at, cost, weight
end

-- Remove the first block of a key, or the beginning of it.
local function discard_block(prio, key, block)
  local queue = queue_key(w, prio, key)
  local rank = block.returned and call('ZRANK', returned_key(w, prio, key), block.data) or 0
  local n, bytes, cost, weight = measure_and_forget(block)
  local whole = n == block.n
  if walks('waiting', w) then
    barrier().note(prio, key, block.returned and 'r' or 'q', rank, whole and -1 or 0, -n, -cost)
  end
  if block.returned then
    call('ZREM', returned_key(w, prio, key), block.data)
  elseif whole then
    call('LPOP', queue)
    call('HDEL', taken_key(w, prio), key)
  else
    local taken = {}
    for i, number in ipairs({ n, bytes, cost, weight }) do taken[i] = text(block.taken[i] + number) end
    call('HSET', taken_key(w, prio), key, table.concat(taken, ' '))
  end
  count_waiting(w, prio, -n, -cost)
end

-- A key that has become empty leaves; its back-fills wait for it no more.
local function discard_key(prio, key)
  local block = first_block(w, prio, key)
  if not block then return call('ZREM', names_key(w, prio), key) end
  while block and has_room() do
    discard_block(prio, key, block)
    block = first_block(w, prio, key)
  end
  if block then return end
  drop_key(w, prio, key)
  if prio < BACKFILL then let_backfills_go(w, key) end
end

local function discard_waiting()
  local o = read_watcher(w)
  while discard_group() do end
  for prio = 0, BACKFILL do
    while has_room() do
      local key = call('ZRANGE', names_key(w, prio), 0, 0)[1]
      if not key then break end
      discard_key(prio, key)
    end
  end
  over = has_room() and call('EXISTS', together_key(w)) == 0
  if over then
    for prio = 0, BACKFILL do call('UNLINK', ring_key(w, prio)) end
  end
  if removed > 0 then reindex(w) end
end
