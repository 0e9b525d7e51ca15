-- Take the oldest messages of lanes under lease, in bulk, one lane after the other.
-- KEYS 1 hash of these leases (number -> list, line feed, message), 2 registry of leases, 3 the
--      store's hash with the turn (any key when the store is elsewhere), 4.. the lanes' lists
-- ARGV 1 token of the turn, 2 id of this call, 3 most messages, 4 most bytes, 5 '1' to check the
--      turn, 6 lists of a lane
-- Returns 'number:size:lane number:size:lane ...', the messages end to end, 'lane lane ...' that
--      are empty; lanes count from 0. The same messages when repeated. O(messages + lanes)
local call = redis.call
local leases, each = KEYS[1], tonumber(ARGV[6])
local rows, messages, empty = {}, {}, {}
local function answer(number, message, lane)
  rows[#rows + 1] = number .. ':' .. #message .. ':' .. lane
  messages[#messages + 1] = message
end
if ARGV[5] == '1' and call('HGET', KEYS[3], 'turn') ~= ARGV[1] then return { '', '', '' } end
local first, last, known = unpack(call('HMGET', leases, 'first', 'last', 'call'))
first, last = tonumber(first) or 1, tonumber(last) or 0
if known == ARGV[2] then
  for number = first, last do
    local list, message = string.match(call('HGET', leases, number) or '', '^(.-)\n(.*)$')
    for i = 4, #KEYS do
      if KEYS[i] == list then answer(number, message, math.floor((i - 4) / each)) end
    end
  end
  return { table.concat(rows, ' '), table.concat(messages), '' }
end
local most, bytes, number = tonumber(ARGV[3]), tonumber(ARGV[4]), last
for i = 4, #KEYS do
  local lane, message = math.floor((i - 4) / each), nil
  repeat
    if number - last >= most or bytes <= 0 then break end
    message = call('RPOP', KEYS[i])
    if message then
      number, bytes = number + 1, bytes - #message
      call('HSET', leases, number, KEYS[i] .. '\n' .. message)
      answer(number, message, lane)
    elseif (i - 3) % each == 0 then
      empty[#empty + 1] = lane
    end
  until not message
end
if number > last then
  call('HSET', leases, 'call', ARGV[2], 'first', last + 1, 'last', number)
  call('SADD', KEYS[2], leases)
end
return { table.concat(rows, ' '), table.concat(messages), table.concat(empty, ' ') }
