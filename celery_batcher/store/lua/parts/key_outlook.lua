-- What the caps of a key leave for an operation of it, and for its next one.

-- What the next operation of a key costs; nil when none waits.
local function next_cost(w, key)
  local sequence = call('ZRANGE', aside_key(w, key), 0, 0)[1]
  local score = sequence and text(ASIDE_FROM + sequence)
  local group = score and call('ZRANGEBYSCORE', together_key(w), score, score)[1]
  if group then return head_of_group(group).costs[1] end
  for prio = 0, BACKFILL do
    local block = first_block(w, prio, key)
    if block then return head_of_key(prio, key, block).costs[1] end
  end
end

-- Milliseconds until `need` more of what a key holds has ended, as far as ends are known.
local function wait_for_key(w, key, need)
  local holds = call('ZRANGEBYSCORE', key_holds(w, key), '-inf', '(+inf', 'WITHSCORES', 'LIMIT', 0, 200)
  for i = 1, #holds, 2 do
    need = need - cost_of_hold(holds[i])
    if need <= 0 then return math.max(1, tonumber(holds[i + 1]) - now) end
  end
  return -1
end

-- Milliseconds until a waiting key is asked again; -1 when it does not wait.
local function asked_again(w, key)
  if not key_waits(w, key) then return -1 end
  local due = call('ZSCORE', KEY_ENDS, struct.pack('>I2', #w) .. w .. key)
  return math.max(0, (tonumber(due) or now) - now)
end

-- Milliseconds until the first of a watcher's keys is looked at, at least. O(100)
local function first_key_due(w)
  local ends, wait = call('ZRANGE', KEY_ENDS, 0, 99, 'WITHSCORES'), 0
  for i = 1, #ends, 2 do
    wait = math.max(0, tonumber(ends[i + 1]) - now)
    if string.sub(ends[i], 3, 2 + struct.unpack('>I2', ends[i])) == w then break end
  end
  return wait
end

-- Of a capped key: capacity or -1, window, concurrency, held with an end, held without, batches in
-- flight, cost of its next operation, milliseconds until there is room for that and for the one in
-- question, until it is asked again, and for which nothing of it may start.
local function key_row(w, o, key, cost)
  if key == '' or not capped(o) then return {} end
  local started, unclaimed, wait, guarded = 0, 0, 0, 0
  local first = next_cost(w, key) or cost
  if o.key_capacity then
    lapse_key(w, key, o.key_window, o.grace)
    started, unclaimed = held_by_key(w, key)
    local lacking = started + unclaimed + math.max(cost, first) - o.key_capacity
    wait = lacking > 0 and wait_for_key(w, key, lacking) or 0
    guarded = math.max(0, num(META, 'restarted_ms') + o.key_window + o.grace - now)
  end
  local flights = o.key_concurrency > 0 and call('SCARD', key_flights(w, key)) or 0
  local row = { o.key_capacity or -1, o.key_window, o.key_concurrency, started, unclaimed, flights,
    first, wait, asked_again(w, key), guarded }
  for i, number in ipairs(row) do row[i] = text(number) end
  return row
end
