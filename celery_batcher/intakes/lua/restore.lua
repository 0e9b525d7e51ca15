-- Put leased messages back into their lanes, in order: the oldest will be taken first again.
-- KEYS 1 hash of the leases, 2 list of the messages, 3 registry of leases. Returns how many.
-- O(messages)
local call = redis.call
local head, sources = unpack(call('HMGET', KEYS[1], 'head', 'sources'))
local from, list = {}, nil
for number, source in string.gmatch(sources or '', '(%d+) ([^\n]*)\n') do
  number = math.max(tonumber(number), tonumber(head))
  from[number] = source
end
local messages, target = call('LRANGE', KEYS[2], 0, -1), {}
for i = 1, #messages do
  list = from[head + i - 1] or list
  target[i] = list
end
for i = #messages, 1, -1 do call('RPUSH', target[i], messages[i]) end
call('DEL', KEYS[1], KEYS[2])
call('SREM', KEYS[3], KEYS[1])
return #messages
