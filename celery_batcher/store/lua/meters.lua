-- What was counted since ever.
-- Returns the fields of the flushes, then per watcher its name and the string of its numbers.
-- O(watchers)
-- @include header index meters
local answer = { call('HGETALL', meters.flushes) }
for _, w in ipairs(call('SMEMBERS', WATCHERS)) do
  answer[#answer + 1] = { w, call('GET', BASE .. 'meters:' .. w) or '' }
end
return answer
