-- Put leased messages back into their lanes, in order: the oldest will be taken first again.
-- KEYS 1 hash of the leases, 2 registry of leases. Returns how many. O(messages)
local numbers, messages = {}, {}
local flat = redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local number = tonumber(flat[i])
  if number then
    numbers[#numbers + 1] = number
    messages[number] = flat[i + 1]
  end
end
table.sort(numbers, function(a, b) return a > b end)
for _, number in ipairs(numbers) do
  local list, message = string.match(messages[number], '^(.-)\n(.*)$')
  redis.call('RPUSH', list, message)
end
redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], KEYS[1])
return #numbers
