-- Comparing counters with what the audit has counted. A difference is remembered; when it is the
-- same in three passes on end, the counter is set to what the data says.
-- DRIFT: by counter, the difference, the passes on end that saw it, the newest of them.
local DRIFT, TIMES = BASE .. 'drift', 3
local differences, skipped, compared = {}, {}, 0
local remembered = {}
for _, id in ipairs(call('HKEYS', DRIFT)) do remembered[id] = true end
local NAMES = { n = 'waiting', cost = 'waiting_cost', n0 = 'waiting_high', n1 = 'waiting_normal',
  n2 = 'waiting_backfill', ns = 'waiting_together', on = 'open_batches', oc = 'open_cost', cn = 'running_batches',
  delayed = 'delayed', admitted = 'admitted_messages' } -- of the fields of a watcher

-- Whether this difference was seen often enough.
local function ripe(id, by)
  local known, times, pass = string.match(call('HGET', DRIFT, id) or '', '^(%S+) (%d+) (%d+)$')
  local on_end = known == text(by) and tonumber(pass) == walk.pass - 1
  times = on_end and times + 1 or 1
  call('HSET', DRIFT, id, table.concat({ text(by), times, walk.pass }, ' '))
  return times >= TIMES
end

-- Returns by how much the counter is wrong afterwards, and 1 when it was repaired.
local function compare(name, w, key, field, counted, recorded)
  compared = compared + 1
  local id, by = name .. ' ' .. w, counted - recorded
  if by == 0 then
    if remembered[id] then call('HDEL', DRIFT, id) end
    return 0, 0
  end
  local repaired = ripe(id, by)
  if repaired then
    call('HSET', key, field, text(recorded))
    call('HDEL', DRIFT, id)
    add(META, 'repaired', 1)
  end
  differences[#differences + 1] = { name, w, text(counted), text(recorded), repaired and 1 or 0 }
  return repaired and 0 or by, repaired and 1 or 0
end

-- The counters of the batcher, or of a watcher, against sums of the same names. Returns by how much
-- each is wrong.
local function compare_fields(w, fields, sums)
  local key, wrong, repairs = w == '' and META or watcher_key(w), {}, 0
  local values = call('HMGET', key, unpack(fields))
  for i, field in ipairs(fields) do
    local name, repaired = w == '' and field or NAMES[field], nil
    wrong[field], repaired = compare(name, w, key, field, tonumber(values[i]) or 0,
      tonumber(sums[field]) or 0)
    repairs = repairs + repaired
  end
  if w ~= '' and repairs > 0 then reindex(w) end
  return wrong
end
