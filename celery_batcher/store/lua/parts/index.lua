-- The index: stored entries (sequence number, entry) of a watcher by priority and key.
-- q: list of what arrived, r: sorted set of what came back, both in sequence;
-- k: sorted set of keys by their virtual time (start-time fair queueing).

local ENTRY = '>I8I4BBBBHI8I8BH' -- sequence, size, version, flags, priority, name, attempt,
-- cost, enqueued_ms, id, key: see wire.py; the variable part starts at byte 38
local ROOM, PRIORITIES = 37, 3

local function watcher_key(w) return BASE .. 'w:' .. w end
local function ring_key(w, prio) return BASE .. 'k:' .. w .. ':' .. prio end
local function queue_key(w, prio, key) return BASE .. 'q:' .. w .. ':' .. prio .. ':' .. key end
local function returned_key(w, prio, key) return BASE .. 'r:' .. w .. ':' .. prio .. ':' .. key end
local function batch_key(id) return BASE .. 'batch:' .. id end
local function entries_key(id) return BASE .. 'entries:' .. id end
local function dead_key(w) return BASE .. 'dead:' .. w end

-- flags, priority, attempt, cost, enqueued_ms, id and key of a stored entry
local function parse(entry)
  local _, _, _, flags, prio, name, attempt, cost, enqueued, id, key = struct.unpack(ENTRY, entry)
  local at = ROOM + name
  return flags, prio, attempt, cost, enqueued, string.sub(entry, at + 1, at + id),
    string.sub(entry, at + id + 1, at + id + key)
end

-- What an operation counts in fairness.
local function weigh(cost) return cost > 0 and cost or 1 end

-- A watcher is in the ring while it has operations and may release a batch.
local function reindex(w)
  local o = call('HMGET', watcher_key(w), 'n', 'on', 'cn', 'max_concurrent', 'probe', 'tag')
  local n, on, cn = tonumber(o[1]) or 0, tonumber(o[2]) or 0, tonumber(o[3]) or 0
  local most = tonumber(o[4]) or 0
  if n > 0 and (most == 0 or on + cn < most) and not (o[5] == '1' and on > 0) then
    local tag = math.max(tonumber(o[6]) or 0, num(META, 'vtime'))
    call('ZADD', RING, 'NX', tag, w)
  else
    call('ZREM', RING, w)
  end
end

-- The key of an entry joins its watcher's ring at the virtual time, unless it is in there.
local function join(w, prio, key)
  call('ZADD', ring_key(w, prio), 'NX', num(watcher_key(w), 'v' .. prio), key)
end

-- An operation waits (again): counters of watcher and batcher.
local function count_waiting(w, prio, n, cost)
  local W = watcher_key(w)
  add(W, 'n', n)
  add(W, 'cost', cost)
  add(W, 'n' .. prio, n)
  add(META, 'waiting', n)
  add(META, 'waiting_cost', cost)
end
