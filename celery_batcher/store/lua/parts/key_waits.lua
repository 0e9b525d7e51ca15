-- A key at its cap leaves the rings of its watcher, and its groups those that may be released; it
-- comes back when a hold of it ends, or a batch of it is settled or recalled.
-- g: sorted set of sequence numbers of its groups that wait. In s: they are behind all others.
local function aside_key(w, key) return BASE .. 'g:' .. w .. ':' .. key end

local function capped(o) return o.key_capacity ~= nil or o.key_concurrency > 0 end

local function key_waits(w, key) return call('HEXISTS', key_sums(w), 'w' .. key) == 1 end

-- What an operation of this cost and those behind it may cost: nil when its key is at its cap. It waits
-- from then on. `o` has the caps of its watcher.
local function room_of_key(w, o, key, cost, class)
  if key == '' or not capped(o) then return math.huge end
  if key_waits(w, key) then return nil end
  if class == 2 and call('HEXISTS', key_sums(w), 'b' .. key) == 1 then return nil end
  local room, guarded = math.huge, 0
  if o.key_capacity then
    guarded = key_guard(o.key_window + o.grace)
    lapse_key(w, key, o.key_window, o.grace)
    local ending, open = held_by_key(w, key)
    room = o.key_capacity - ending - open
  end
  local busy = o.key_concurrency > 0 and call('SCARD', key_flights(w, key)) >= o.key_concurrency
  if cost <= room and not busy and guarded == 0 then return room end
  call('HSET', key_sums(w), 'w' .. key, 1)
  note_end(w, key, now + (guarded > 0 and guarded or KEY_ASK_MS))
  return nil
end

-- A group goes behind all others (1), or back to its place (-1): for the audit it leaves and comes.
local function move_group(w, data, score)
  local group, groups = open_block(data), together_key(w)
  if walks('waiting', w) then
    barrier().note(PRIORITIES, '', 's', data, -1, -group.n, -group.cost, groups)
  end
  call('ZADD', groups, text(score), data)
  if walks('waiting', w) then
    barrier().note(PRIORITIES, '', 's', data, 1, group.n, group.cost, groups)
  end
end

local function set_group_aside(w, key, group)
  call('ZADD', aside_key(w, key), group.sequence, group.sequence)
  move_group(w, group.data, ASIDE_FROM + group.sequence)
  reindex(w) -- back-fills waited for it
end

-- The first of a key's groups may be released again; the next when that is.
local function wake_group(w, key)
  local sequence = call('ZPOPMIN', aside_key(w, key))[2]
  if not sequence then return end
  local score = text(ASIDE_FROM + sequence)
  local data = call('ZRANGEBYSCORE', together_key(w), score, score)[1]
  if data then move_group(w, data, tonumber(sequence)) end
end

local function join_if_any(w, prio, key)
  local any = call('EXISTS', queue_key(w, prio, key), returned_key(w, prio, key)) > 0
  if any then join(w, prio, key) end
  return any
end

-- Back-fills of a key that was at its cap wait until its urgent operations have had a batch.
local function wake_key(w, key)
  if call('HDEL', key_sums(w), 'w' .. key) == 0 then return end
  for prio = 0, PRIORITIES - 1 do
    if join_if_any(w, prio, key) and prio < BACKFILL then call('HSET', key_sums(w), 'b' .. key, 1) end
  end
  wake_group(w, key)
end

local function let_backfills_go(w, key)
  if call('HDEL', key_sums(w), 'b' .. key) == 1 then join_if_any(w, BACKFILL, key) end
end

-- A batch leaves the ledger. What it holds goes with it, unless its handler has started.
local function let_key_go(id, b)
  if not b.key then return end
  local freed = call('SREM', key_flights(b.watcher, b.key), id) == 1
  if b.hold and b.state == 'open' then
    call('ZREM', key_holds(b.watcher, b.key), b.hold)
    add_to_key(b.watcher, b.key, 'o', -cost_of_hold(b.hold))
    freed = true
  end
  if freed then wake_key(b.watcher, b.key) end
end

-- Keys of which something is over: holds go, who waits comes back. O(what is due), 100 at most
local function lapse_keys(grace)
  local watchers = {}
  for _, member in ipairs(call('ZRANGEBYSCORE', KEY_ENDS, '-inf', now, 'LIMIT', 0, 100)) do
    local size = struct.unpack('>I2', member)
    local w, key = string.sub(member, 3, 2 + size), string.sub(member, 3 + size)
    local _, window = read_caps(w)
    call('ZREM', KEY_ENDS, member)
    lapse_key(w, key, window, grace)
    note_end(w, key)
    wake_key(w, key)
    watchers[w] = true
  end
  for w in pairs(watchers) do reindex(w) end
end
