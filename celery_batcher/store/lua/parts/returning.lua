-- Operations that were in a batch before: to their place in the index, at once or later.

-- A block of one operation waits again, before what arrived and by its sequence number; a group
-- (together.lua) before all others.
local function wait_again(w, data)
  local block = open_block(data)
  if block.n > 1 then return add_group(w, data) end
  local entry = read_entry(data, block.at)
  local key = key_of(data, entry)
  local returned = returned_key(w, entry.prio, key)
  call('ZADD', returned, block.sequence, data)
  join(w, entry.prio, key)
  if walks('waiting', w) then
    barrier().note(entry.prio, key, 'r', data, 1, 1, entry.cost, returned)
  end
  count_waiting(w, entry.prio, 1, entry.cost)
end

local function count_delayed(w, n, cost)
  add(watcher_key(w), 'delayed', n)
  add(META, 'delayed', n)
  add(META, 'delayed_cost', cost)
end

local function wait_later(w, data, delay)
  local block, member = open_block(data), struct.pack('>I2', #w) .. w .. data
  call('ZADD', LATER, now + delay, member)
  count_delayed(w, block.n, block.cost)
  if walks('delayed') then barrier().note_delayed(w, member, 1, block.n, block.cost) end
end

-- Operations that may meet no others wait together; a single one stays alone from now on.
local function keep_together(w, singles, delay)
  if #singles == 0 then return end
  local data = #singles == 1 and alone(singles[1], BLOCK_SIZE) or pack_group(singles)
  if delay > 0 then wait_later(w, data, delay) else wait_again(w, data) end
end

-- What has waited long enough waits again, and watchers that were parked are asked again.
-- O(what is due), 100 at most of each
local PARKED_MS = 250
local function bring_back()
  local watchers = {}
  for _, w in ipairs(call('ZRANGEBYSCORE', PARKED, '-inf', now, 'LIMIT', 0, 100)) do
    call('ZREM', PARKED, w)
    watchers[w] = true
  end
  for _, member in ipairs(call('ZRANGEBYSCORE', LATER, '-inf', now, 'LIMIT', 0, 100)) do
    local size = struct.unpack('>I2', member)
    local w, data = string.sub(member, 3, 2 + size), string.sub(member, 3 + size)
    local block = open_block(data)
    if walks('delayed') then barrier().note_delayed(w, member, -1, -block.n, -block.cost) end
    call('ZREM', LATER, member)
    count_delayed(w, -block.n, -block.cost)
    wait_again(w, data)
    watchers[w] = true
  end
  for w in pairs(watchers) do reindex(w) end
end

-- Milliseconds until the next delay is over, or the next hold of a key; -1 when there is none.
local function next_due()
  local due = math.huge
  for _, key in ipairs({ LATER, PARKED, KEY_ENDS }) do
    due = math.min(due, tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) or math.huge)
  end
  return due < math.huge and math.max(1, due - now) or -1
end
