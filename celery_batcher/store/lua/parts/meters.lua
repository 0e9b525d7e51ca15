-- What is counted for ever. By watcher: a string of numbers of 8 bytes, any of which one BITFIELD
-- adds to; store/meters.py has the layout. Of the batcher: flushes by result, the newest of them,
-- and a line for each of the batches that ended last.
local meters = { flushes = KEYS[22], recent = KEYS[23] }

-- Add to numbers of a watcher, given as pairs of place and number.
function meters.add(w, ...)
  local given, command = { ... }, {}
  for i = 1, #given, 2 do
    if given[i + 1] ~= 0 then
      local number = string.format('%.0f', given[i + 1])
      for _, word in ipairs({ 'INCRBY', 'i64', '#' .. given[i], number }) do
        command[#command + 1] = word
      end
    end
  end
  if #command > 0 then call('BITFIELD', BASE .. 'meters:' .. w, unpack(command)) end
end

-- The place of a value in a histogram that begins at `first`: one for each bound, one for what is more.
function meters.place(first, bounds, value)
  for i, bound in ipairs(bounds) do
    if value <= bound then return first + i - 1 end
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
  local tally = { 0, 0, 0, 0, 0, 0 }
  for i, number in ipairs(open_costs(packed)) do tally[i] = number end
  return tally
end

function meters.count_outcomes(w, tally, ...)
  meters.add(w, 1, tally[1], 2, tally[2], 3, tally[3], 4, tally[4], 5, tally[5], ...)
end

-- A batch as recent batches show it; `tally` of all of its operations that have an outcome, `left`
-- and `cost` of those that have none.
function meters.line(id, b, state, ended, tally, left, cost)
  local n = left
  for i = 1, 5 do n = n + tally[i] end
  return table.concat({ id, state, b.trigger, text(n), text(cost + tally[6]), b.oldest, b.released,
    b.started or -1, ended, pack_costs(tally), b.watcher }, ' ')
end

-- A batch leaves the ledger. `tally`: the outcomes that its other operations got before, in commits.
function meters.end_batch(id, b, state, now_tally)
  local tally = meters.open_tally(b.tally)
  if b.state ~= 'claimed' then
    meters.add(b.watcher, 14, 1)
    now_tally = { 0, 0, 0, 0, 0, 0 }
  else
    local ended = ({ expired = 12, abandoned = 13 })[state]
    local bounds = { 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000 }
    local took = math.max(0, now - (b.started or now))
    meters.count_outcomes(b.watcher, now_tally, meters.place(42, bounds, took), 1, 55, took,
      ended or 12, ended and 1 or 0)
  end
  for i = 1, 6 do tally[i] = tally[i] + now_tally[i] end
  local left = b.state == 'claimed' and { 0, 0 } or { b.n, b.cost }
  local line = meters.line(id, b, state, now, tally, left[1], left[2])
  if call('LPUSH', meters.recent, line) >= 200 then call('LTRIM', meters.recent, 0, 99) end
end
