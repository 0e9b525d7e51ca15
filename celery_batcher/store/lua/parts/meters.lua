-- What is counted for ever. By watcher: a string of numbers of 8 bytes, any of which one BITFIELD
-- adds to; store/meters.py has the layout. Of the batcher: flushes by result, the newest of them,
-- and a line for each of the batches that ended last.
local meters = { flushes = KEYS[22], recent = KEYS[23] }

-- Add to numbers of a watcher, given as pairs of place and number.
function meters.add(w, ...)
  local given, command, n = { ... }, { 'BITFIELD', BASE .. 'meters:' .. w }, 2
  for i = 1, #given, 2 do
    if given[i + 1] ~= 0 then
      command[n + 1], command[n + 2], command[n + 3] = 'INCRBY', 'i64', '#' .. given[i]
      command[n + 4] = given[i + 1] -- below 2^53, which `call` writes as an integer
      n = n + 4
    end
  end
  if n > 2 then call(unpack(command)) end
end

-- The place of a value in a histogram that begins at `first`: one for each bound, one for what is more.
function meters.place(first, bounds, value)
  for i = 1, #bounds do
    if value <= bounds[i] then return first + i - 1 end
  end
  return first + #bounds
end

function meters.count_release(w, batch, cost)
  local triggers = { size = 7, capacity = 8, interval = 9, single = 10, bisect = 11 }
  local sizes = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000 }
  local ages = { 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 1800000, 7200000 }
  local age = math.max(0, now - batch.oldest)
  meters.add(w, triggers[batch.trigger], 1, 6, cost, meters.place(16, sizes, batch.n), 1, 27, batch.n,
    meters.place(28, ages, age), 1, 41, age)
end

-- A flush ends without a further batch. A repeat has the same id, and is not counted.
-- Returns the answer of release.lua.
function meters.end_flush(id, batches, operations, reason, wait, freed)
  if call('HGET', meters.flushes, 'id') ~= id then
    call('HSET', meters.flushes, 'id', id, 'at', now, 'batches', batches, 'operations', operations,
      'reason', reason)
    call('HINCRBY', meters.flushes, 'by:' .. reason, 1)
  end
  return { reason, wait, freed }
end

-- How many operations were done, tried again, halved, given back, dead; and their cost.
function meters.open_tally(packed)
  local tally = open_costs(packed)
  return #tally > 0 and tally or { 0, 0, 0, 0, 0, 0 }
end

function meters.count_outcomes(w, tally, ...)
  meters.add(w, 1, tally[1], 2, tally[2], 3, tally[3], 4, tally[4], 5, tally[5], ...)
end

-- A batch as recent batches show it; `tally` of all of its operations that have an outcome, `left`
-- and `cost` of those that have none.
function meters.line(id, b, state, ended, tally, left, cost)
  local done, retried, halved, back, dead, cost_of_them = unpack(tally)
  return string.format('%s %s %s %.0f %.0f %s %s %s %s %.0f %.0f %.0f %.0f %.0f %s', id, state,
    b.trigger, left + done + retried + halved + back + dead, cost + cost_of_them, b.oldest,
    b.released, b.started or -1, ended, done, retried, halved, back, dead, b.watcher)
end

-- A batch leaves the ledger. `tally`: the outcomes that its operations get now, if it was claimed.
function meters.end_batch(id, b, state, tally)
  local before, left, cost = meters.open_tally(b.tally), 0, 0
  if b.state == 'claimed' then
    local ended = ({ expired = 12, abandoned = 13 })[state]
    local bounds = { 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000 }
    local took = math.max(0, now - (b.started or now))
    meters.count_outcomes(b.watcher, tally, meters.place(42, bounds, took), 1, 55, took,
      ended or 12, ended and 1 or 0)
    for i = 1, 6 do before[i] = before[i] + tally[i] end
  else
    meters.add(b.watcher, 14, 1)
    left, cost = b.n, b.cost
  end
  local line = meters.line(id, b, state, string.format('%.0f', now), before, left, cost)
  if call('LPUSH', meters.recent, line) >= 200 then call('LTRIM', meters.recent, 0, 99) end
end
