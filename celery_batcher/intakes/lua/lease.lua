-- Take the oldest messages of lanes under lease, in bulk, lane after lane, numbered in this order.
-- KEYS 1 hash of these leases: head (number of the oldest), first, last and call of the last take,
--      sources ('number list' lines: from this number on, messages came from this list), 2 list of
--      the messages, 3 registry of leases, 4 the store's hash with the turn (any key when the
--      store is elsewhere), 5.. the lanes' lists
-- ARGV 1 token of the turn, 2 id of this call, 3 most messages, 4 most bytes, 5 '1' to check the
--      turn, 6 lists of a lane
-- Returns 'number:size:lane ...', the messages end to end, 'lane lane ...' that are empty, and of
--      these those that are no lists; lanes count from 0. The same when repeated. O(messages + lanes)
local call = redis.call
local leases, list, lanes_from, each = KEYS[1], KEYS[2], 5, tonumber(ARGV[6])
local rows, messages, empty, wrong = {}, {}, {}, {}
local function lane_of(i) return math.floor((i - lanes_from) / each) end
local function answer(number, message, lane)
  rows[#rows + 1] = number .. ':' .. #message .. ':' .. lane
  messages[#messages + 1] = message
end
if ARGV[5] == '1' and call('HGET', KEYS[4], 'turn') ~= ARGV[1] then return { '', '', '', '' } end
local known, sources, head, first, last = unpack(call('HMGET', leases, 'call', 'sources', 'head',
  'first', 'last'))
head, first, last = tonumber(head) or 1, tonumber(first) or 1, tonumber(last) or 0
if known == ARGV[2] then
  local index, source = {}, nil
  for i = lanes_from, #KEYS do index[KEYS[i]] = i end
  for number, message in ipairs(call('LRANGE', list, first - head, last - head)) do
    number = first + number - 1
    source = string.match('\n' .. sources, '\n' .. number .. ' ([^\n]*)') or source
    answer(number, message, lane_of(index[source]))
  end
  return { table.concat(rows, ' '), table.concat(messages), '', '' }
end
if head > last then sources = '' end
local most, bytes, number, failed = tonumber(ARGV[3]), tonumber(ARGV[4]), last, nil
for i = lanes_from, #KEYS do
  local source = KEYS[i]
  repeat
    if number - last >= most or bytes <= 0 then break end
    local message = redis.pcall('LMOVE', KEYS[i], list, 'RIGHT', 'RIGHT')
    if type(message) == 'table' then -- what was moved before must be noted all the same
      if call('TYPE', KEYS[i]).ok == 'list' then failed = message break end
      wrong[#wrong + 1], message = lane_of(i), false
    end
    if message then
      number, bytes = number + 1, bytes - #message
      if source then sources, source = sources .. number .. ' ' .. source .. '\n', nil end
      answer(number, message, lane_of(i))
    elseif (i - lanes_from + 1) % each == 0 then
      empty[#empty + 1] = lane_of(i)
    end
  until not message
end
if number > last then
  call('HSET', leases, 'call', ARGV[2], 'sources', sources, 'head', head, 'first', last + 1,
    'last', number)
  call('SADD', KEYS[3], leases)
elseif failed then
  return failed
end
rows, empty, wrong = table.concat(rows, ' '), table.concat(empty, ' '), table.concat(wrong, ' ')
return { rows, table.concat(messages), empty, wrong }
