-- Enter messages in the books before they are published: as many as the buffer has room for, and
-- as the sum of all costs stays below 2^53, which a double holds exactly. None while it is drained.
-- ARGV 3 buffer_size, 4 messages as JSON: [[id, watcher, operations, cost], ...]
-- Returns the number of messages admitted, of operations in the buffer, 1 when it was the cost that
-- did not fit, and 1 when the batcher is drained. O(messages)
-- @include header index walk
local buffered = num(META, 'admitted') + num(META, 'waiting') + num(META, 'delayed')
local room, most = tonumber(ARGV[3]) - buffered, headroom()
local stamp = walks('admitted') and walk.pass or '0'
local admitted, operations, total, too_dear, draining, lanes = 0, 0, 0, 0, 0, {}
for _, message in ipairs(cjson.decode(ARGV[4])) do
  local id, w, n, cost = unpack(message)
  if call('HEXISTS', ADMITTED, id) == 0 then
    if num(META, 'draining') == 1 then draining = 1 break end
    if total + cost > most then too_dear = 1 break end
    if operations + n > room then break end
    call('HSET', ADMITTED, id, table.concat({ text(n), text(cost), text(now), stamp, w }, ':'))
    if stamp ~= '0' then barrier().sum_up_admitted(w, 1, n, cost) end
    lanes[w] = (lanes[w] or 0) + 1
    operations, total = operations + n, total + cost
  end
  admitted = admitted + 1
end
for w, messages in pairs(lanes) do
  call('SADD', LANES, w)
  add(watcher_key(w), 'admitted', messages)
end
add(META, 'admitted', operations)
add(META, 'admitted_cost', total)
return { admitted, buffered + operations, too_dear, draining }
