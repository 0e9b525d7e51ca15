-- Move messages of lanes into the index, each once: its data, its books and, when the lane is in
-- this database, its acknowledgement change together.
-- KEYS when lanes are in this database: 24 hash of the leases, 25 list of the leased messages
-- ARGV 3 token of the turn, 4 messages as JSON: [[id, watcher, its number in the leases ('' when
--      lanes are elsewhere), bytes, reason to set it aside ('' to stage it), pieces (staging.lua)],
--      ...], those under lease from the oldest on, 5 their entries laid end to end, 6 operations and 7 bytes of a block
-- Returns operations staged, duplicates dropped, messages set aside; -1 when the turn is not ours.
-- O(messages + blocks), and O(registered operations)
-- @include header blocks index meters walk admission staging
if call('HGET', META, 'turn') ~= ARGV[3] then return { -1, 0, 0 } end
local data, most, most_bytes = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local room = headroom()
local any_repeated, dropped, aside = call('ZCARD', REPEATED) > 0, 0, 0
local messages = cjson.decode(ARGV[4])
local head, first, last = math.huge, tonumber(messages[1][3]), tonumber(messages[#messages][3])
if KEYS[24] then
  head = tonumber(call('HGET', KEYS[24], 'head')) or math.huge
  if first > head or last - first + 1 ~= #messages then
    return redis.error_reply('leased messages are staged from the oldest on, none left out')
  end
end

local function first_time(id, number)
  local repeated = any_repeated and call('ZSCORE', REPEATED, id)
    and call('HEXISTS', ADMITTED, id) == 0
  if number then return number >= head and not repeated end
  return call('ZADD', NOTED, 'NX', now, id) == 1 and not repeated
end

local at = 1
for _, message in ipairs(messages) do
  local id, w, number, size, reason, pieces = unpack(message)
  if first_time(id, tonumber(number)) then
    begin(w)
    local cost = -discharge(id)
    for _, piece in ipairs(pieces) do cost = cost + piece[3] end
    if cost > room then reason = 'impossible cost' end
    if reason == '' then
      room = room - cost
      dropped = dropped + take(w, pieces, data, at, most, most_bytes)
    else
      call('RPUSH', ASIDE, struct.pack('>I8I4I4', now, #w, #reason) .. w .. reason
        .. string.sub(data, at, at + size - 1))
      aside = aside + 1
    end
  end
  at = at + size
end
if KEYS[24] and last >= head then
  call('LTRIM', KEYS[25], last - head + 1, -1)
  call('HSET', KEYS[24], 'head', last + 1)
end
close_books()
add(META, 'duplicates', dropped)
return { push_all(), dropped, aside }
