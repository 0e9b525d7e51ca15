-- The entries of a message, or nil and what is wrong with it (wire.py has the layout).
-- Of each: priority, cost, key, id if it is registered (else false), bytes.
local function unpack_entries(data)
  local entries, n, at, size = {}, 0, 1, #data
  while at <= size do
    if size - at + 1 < 29 then return nil, 'truncated entry' end
    local length, version, flags, prio, name, attempt, cost, _, id, key =
      struct.unpack('>I4BBBBHI8I8BH', data, at)
    local stop, body = at + 3 + length, at + 29 + name
    if version ~= 1 then return nil, 'unknown version ' .. version end
    if stop > size or body + id + key - 1 > stop then return nil, 'truncated entry' end
    if prio > 2 or cost >= 2 ^ 53 or attempt == 0 or id == 0 then return nil, 'impossible header' end
    n = n + 1
    entries[n] = {
      prio, cost, key > 0 and string.sub(data, body + id, body + id + key - 1) or '',
      math.floor(flags / 2) % 2 == 1 and string.sub(data, body, body + id - 1),
      string.sub(data, at, stop),
    }
    at = stop + 1
  end
  if n == 0 then return nil, 'no entry' end
  return entries
end

-- Append the groups of one watcher, by priority and key, to its queues.
local function push(w, groups)
  for prio, keys in pairs(groups) do
    local n, cost = 0, 0
    for key, of_key in pairs(keys) do
      for first = 1, of_key.n, 1000 do
        local last = math.min(first + 999, of_key.n)
        call('RPUSH', queue_key(w, prio, key), unpack(of_key, first, last))
      end
      join(w, prio, key)
      n, cost = n + of_key.n, cost + of_key.cost
    end
    count_waiting(w, prio, n, cost)
  end
  call('SADD', WATCHERS, w)
  reindex(w)
end
