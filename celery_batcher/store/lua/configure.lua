-- Write the options of watchers and the capacity of the resource, as the code has them.
-- ARGV 3 capacity ('' none), 4 hold_ms (window + grace); then per watcher: name, max_batch_size, max_attempts,
--      max_concurrent, weight, by_key, max_dead, bisect
-- Returns the capacity that stood before ('' none). O(watchers); a changed capacity: O(all watchers)
-- @include header holds index
local before = call('HGET', RES, 'capacity') or ''
if ARGV[3] ~= '' then
  call('HSET', RES, 'capacity', ARGV[3], 'hold_ms', longest_hold(ARGV[4]))
end
for i = 5, #ARGV, 8 do
  call('SADD', WATCHERS, ARGV[i])
  call('HSET', watcher_key(ARGV[i]), 'max_batch_size', ARGV[i + 1], 'max_attempts', ARGV[i + 2],
    'max_concurrent', ARGV[i + 3], 'weight', ARGV[i + 4], 'by_key', ARGV[i + 5],
    'max_dead', ARGV[i + 6], 'bisect', ARGV[i + 7])
  reindex(ARGV[i])
end
if ARGV[3] ~= '' and before ~= ARGV[3] then
  for _, w in ipairs(call('SMEMBERS', WATCHERS)) do reindex(w) end
end
return before
