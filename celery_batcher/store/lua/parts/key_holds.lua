-- Caps of one key of a watcher (key_capacity, key_concurrency): what the key holds, and when that ends.
-- h: sorted set of its holds by end, those of unclaimed batches at infinity: cost and batch;
-- f: set of its batches in flight;
-- x: hash of the watcher: by key the costs of its holds with an end (e) and without (o), and whether
-- the key waits outside of its rings (w), its back-fills for what is urgent of it (b).
-- KEY_ENDS: keys that hold or wait, by the next time that something of them is over.
local KEY_ASK_MS = 30000 -- a key that waits for no known time is asked again after it

local function key_holds(w, key) return BASE .. 'h:' .. w .. ':' .. key end
local function key_flights(w, key) return BASE .. 'f:' .. w .. ':' .. key end
local function key_sums(w) return BASE .. 'x:' .. w end

local function read_caps(w)
  local c = call('HMGET', watcher_key(w), 'key_capacity', 'key_window')
  return tonumber(c[1]), tonumber(c[2]) or 1000
end

local function cost_of_hold(hold) return tonumber(string.match(hold, '^%d+')) end

-- Sums count only while there are holds: what was counted wrong goes with the last of them.
local function add_to_key(w, key, sum, cost)
  if call('EXISTS', key_holds(w, key)) == 0 then
    call('HDEL', key_sums(w), 'e' .. key, 'o' .. key)
  else
    call('HINCRBY', key_sums(w), sum .. key, text(cost))
  end
end

-- The key is looked at when its next hold ends, or else at `later`.
local function note_end(w, key, later)
  local due = call('ZRANGEBYSCORE', key_holds(w, key), '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  due = math.min(tonumber(due) or math.huge, later or math.huge)
  if due < math.huge then
    call('ZADD', KEY_ENDS, 'LT', text(due), struct.pack('>I2', #w) .. w .. key)
  end
end

-- Let go of what has ended; cut what a clock that went back left too far away.
local function lapse_key(w, key, window, grace)
  local holds, latest = key_holds(w, key), now + window + grace
  for _, hold in ipairs(call('ZRANGEBYSCORE', holds, '(' .. text(latest), '(+inf')) do
    call('ZADD', holds, latest, hold)
  end
  local ended = call('ZRANGEBYSCORE', holds, '-inf', now, 'LIMIT', 0, 1000)
  while #ended > 0 do
    local freed = 0
    for _, hold in ipairs(ended) do freed = freed + cost_of_hold(hold) end
    call('ZREM', holds, unpack(ended))
    add_to_key(w, key, 'e', -freed)
    ended = call('ZRANGEBYSCORE', holds, '-inf', now, 'LIMIT', 0, 1000)
  end
end

-- What a key holds with an end and without.
local function held_by_key(w, key)
  local sums = call('HMGET', key_sums(w), 'e' .. key, 'o' .. key)
  if (sums[1] or sums[2]) and call('EXISTS', key_holds(w, key)) == 0 then
    call('HDEL', key_sums(w), 'e' .. key, 'o' .. key)
    return 0, 0
  end
  return tonumber(sums[1]) or 0, tonumber(sums[2]) or 0
end

-- Milliseconds for which no operation of a capped key may start, because the server may have lost
-- holds of this length: it is another than before, or younger. Tests on a clock of theirs have none.
local restarted -- read once
local function key_guard(hold_ms)
  if ARGV[2] ~= '' then return 0 end
  if not restarted then
    local info, known = call('INFO', 'server'), call('HMGET', META, 'run_id', 'restarted_ms')
    local run = string.match(info, 'run_id:(%w+)')
    restarted = tonumber(known[2])
    if known[1] ~= run then
      local uptime_ms = 1000 * tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or 0)
      restarted = known[1] and now or now - uptime_ms
      call('HSET', META, 'run_id', run, 'restarted_ms', text(restarted))
    end
  end
  return math.max(0, restarted + hold_ms - now)
end

-- A batch of this key is released; `o` has the caps of its watcher.
local function hold_key(w, o, key, id, cost)
  call('HSET', batch_key(id), 'key', key)
  if o.key_concurrency > 0 then call('SADD', key_flights(w, key), id) end
  if o.key_capacity and cost > 0 then
    local hold = text(cost) .. ' ' .. id
    call('HSET', batch_key(id), 'hold', hold)
    call('ZADD', key_holds(w, key), '+inf', hold)
    add_to_key(w, key, 'o', cost)
  end
end

-- Whether what started of the key leaves no room for a batch that holds; and whether nothing would.
local function key_refuses(b, grace)
  local capacity, window = read_caps(b.watcher)
  if not b.hold or not capacity then return false, false end
  lapse_key(b.watcher, b.key, window, grace)
  local cost = cost_of_hold(b.hold)
  local full = held_by_key(b.watcher, b.key) + cost > capacity
  return full or key_guard(window + grace) > 0, cost > capacity
end

-- The handler of a batch starts: its hold has an end, and the same again with every renewal.
local function start_key(b, grace)
  if not b.hold then return end
  local _, window = read_caps(b.watcher)
  call('ZADD', key_holds(b.watcher, b.key), now + window + grace, b.hold)
  note_end(b.watcher, b.key)
end

local function claim_key(b, grace)
  if not b.hold then return end
  start_key(b, grace)
  add_to_key(b.watcher, b.key, 'o', -cost_of_hold(b.hold))
  add_to_key(b.watcher, b.key, 'e', cost_of_hold(b.hold))
end

-- Whether the hold of a claimed batch stands, and the capacity of its key allows that it goes on.
local function key_stands(b, grace)
  if not b.hold then return true end
  local capacity, window = read_caps(b.watcher)
  lapse_key(b.watcher, b.key, window, grace)
  local stands = call('ZSCORE', key_holds(b.watcher, b.key), b.hold)
  return stands and (not capacity or held_by_key(b.watcher, b.key) <= capacity)
end
