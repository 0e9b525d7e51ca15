-- Write which partitions of a shared resource are leased, and how much longer.
-- ARGV 3 partitions and milliseconds as JSON: {index: ms, ...}. Returns how many. O(partitions)
-- @include header index
call('DEL', LEASES)
local leased = 0
for partition, ms in pairs(cjson.decode(ARGV[3])) do
  call('ZADD', LEASES, now + ms, partition)
  leased = leased + 1
end
for _, w in ipairs(call('SMEMBERS', WATCHERS)) do reindex(w) end
return leased
