-- Operations that were in a batch before: to their place in the index, at once or later.

-- A block of one operation waits again, before what arrived and by its sequence number.
local function wait_again(w, data)
  local block, entry = open_block(data), read_entry(data, BLOCK_SIZE + 1)
  local key = key_of(data, entry)
  call('ZADD', returned_key(w, entry.prio, key), block.sequence, data)
  join(w, entry.prio, key)
  count_waiting(w, entry.prio, 1, entry.cost)
end

local function count_delayed(w, n, cost)
  add(watcher_key(w), 'delayed', n)
  add(META, 'delayed', n)
  add(META, 'delayed_cost', cost)
end

local function wait_later(w, data, cost, delay)
  call('ZADD', LATER, now + delay, struct.pack('>I2', #w) .. w .. data)
  count_delayed(w, 1, cost)
end

-- Operations whose delay is over wait again. O(operations), 100 at most
local function bring_back()
  local watchers = {}
  for _, member in ipairs(call('ZRANGEBYSCORE', LATER, '-inf', now, 'LIMIT', 0, 100)) do
    local size = struct.unpack('>I2', member)
    local w, data = string.sub(member, 3, 2 + size), string.sub(member, 3 + size)
    call('ZREM', LATER, member)
    count_delayed(w, -1, -open_block(data).cost)
    wait_again(w, data)
    watchers[w] = true
  end
  for w in pairs(watchers) do reindex(w) end
end

-- Milliseconds until the next delay is over; -1 when nothing is delayed.
local function next_due()
  local first = call('ZRANGE', LATER, 0, 0, 'WITHSCORES')
  return first[2] and math.max(1, tonumber(first[2]) - now) or -1
end
