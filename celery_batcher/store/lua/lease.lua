-- Write which partitions of a shared resource are leased, and how much longer, in place of those before.
-- ARGV 3 token of the limiter, 4 partitions and milliseconds as JSON: [[index, ms], ...], 5 the last
--      partition and 6 what it is worth less than the others
-- Returns 1; 0 when another limiter has the right. O(partitions + watchers)
-- @include header index
if call('HGET', RES, 'limiter') ~= ARGV[3] then return 0 end
call('DEL', LEASES)
for _, lease in ipairs(cjson.decode(ARGV[4])) do
  call('ZADD', LEASES, now + lease[2], lease[1])
end
call('HSET', RES, 'last', ARGV[5], 'lacking', ARGV[6])
for _, w in ipairs(call('SMEMBERS', WATCHERS)) do reindex(w) end
return 1
