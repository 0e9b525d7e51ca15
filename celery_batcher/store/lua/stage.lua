-- Move messages of lanes into the index, each once: its data, its books and, when the lane is in
-- this database, its acknowledgement change together.
-- KEYS 17 hash of the leases in this database, or 'noted' again when lanes are elsewhere
-- ARGV 3 token of the turn, 4 messages as JSON: [[id, watcher, its field in the leases ('' when
--      lanes are elsewhere), bytes, reason to set it aside ('' to stage it), pieces (staging.lua)],
--      ...], 5 their entries laid end to end, 6 operations and 7 bytes of a block
-- Returns operations staged, duplicates dropped, messages set aside; -1 when the turn is not ours.
-- O(messages + blocks), and O(registered operations)
-- @include header blocks index admission staging
if call('HGET', META, 'turn') ~= ARGV[3] then return { -1, 0, 0 } end
local data, most, most_bytes = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local any_repeated, dropped, aside = call('ZCARD', REPEATED) > 0, 0, 0

local function first_time(id, field)
  local repeated = any_repeated and call('ZSCORE', REPEATED, id)
    and call('HEXISTS', ADMITTED, id) == 0
  if field ~= '' then return call('HDEL', KEYS[17], field) == 1 and not repeated end
  return call('ZADD', NOTED, 'NX', now, id) == 1 and not repeated
end

local function stage(w, pieces, at)
  for _, piece in ipairs(pieces) do
    local id_at, id_size = piece[9], piece[10]
    if id_at and call('SADD', IDS, string.sub(data, at + id_at, at + id_at + id_size - 1)) == 0 then
      dropped = dropped + 1
    else
      gather(w, piece, data, at, most, most_bytes)
    end
    at = at + piece[5]
  end
end

local at = 1
for _, message in ipairs(cjson.decode(ARGV[4])) do
  local id, w, field, size, reason, pieces = unpack(message)
  if first_time(id, field) then
    begin(w)
    if reason == '' then
      stage(w, pieces, at)
    else
      call('RPUSH', ASIDE, struct.pack('>I8I4I4', now, #w, #reason) .. w .. reason
        .. string.sub(data, at, at + size - 1))
      aside = aside + 1
    end
    discharge(id)
  end
  at = at + size
end
close_books()
return { push_all(), dropped, aside }
