-- Move messages of lanes into the index, each once: its data, its books and, when the lane is in
-- this database, its acknowledgement change together.
-- KEYS 17 hash of the leases in this database, or 'noted' again when lanes are elsewhere
-- ARGV 3 token of the turn, 4 messages as JSON: [[id, watcher, its field in the leases ('' when
--      lanes are elsewhere), bytes, reason to set it aside ('' to stage it)], ...], 5 their entries
--      laid end to end
-- Returns operations staged, duplicates dropped, messages set aside; -1 when the turn is not ours.
-- O(operations)
-- @include header index admission unpacking
if call('HGET', META, 'turn') ~= ARGV[3] then return { -1, 0, 0 } end
local sequence, staged, dropped, aside = num(META, 'sequence'), 0, 0, 0
local any_repeated, staging = call('ZCARD', REPEATED) > 0, {}

local function first_time(id, field)
  local repeated = any_repeated and call('ZSCORE', REPEATED, id)
    and call('HEXISTS', ADMITTED, id) == 0
  if field ~= '' then return call('HDEL', KEYS[17], field) == 1 and not repeated end
  return call('ZADD', NOTED, 'NX', now, id) == 1 and not repeated
end

local function place(groups, entry)
  local prio, cost, key, id, bytes = unpack(entry)
  if id and call('SADD', IDS, id) == 0 then
    dropped = dropped + 1
    return
  end
  sequence, staged = sequence + 1, staged + 1
  local of_key = groups[prio][key]
  if not of_key then
    of_key = { cost = 0, n = 0 }
    groups[prio][key] = of_key
  end
  of_key.cost, of_key.n = of_key.cost + cost, of_key.n + 1
  of_key[of_key.n] = struct.pack('>I8c0', sequence, bytes)
end

local at = 1
for _, message in ipairs(cjson.decode(ARGV[4])) do
  local id, w, field, size, reason = unpack(message)
  local data = string.sub(ARGV[5], at, at + size - 1)
  at = at + size
  if first_time(id, field) then
    local entries
    staging[w] = staging[w] or { [0] = {}, {}, {} }
    if reason == '' then entries, reason = unpack_entries(data) end
    for _, entry in ipairs(entries or {}) do place(staging[w], entry) end
    if not entries then
      call('RPUSH', ASIDE, struct.pack('>I8I4I4', now, #w, #reason) .. w .. reason .. data)
      aside = aside + 1
    end
    discharge(id)
  end
end
close_books()
call('HSET', META, 'sequence', sequence)
for w, groups in pairs(staging) do push(w, groups) end
return { staged, dropped, aside }
