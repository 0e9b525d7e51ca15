-- Write which partitions of a shared resource are leased, and until when, in place of those before.
-- ARGV 3 term of the limiter, 4 partitions and ends as JSON: [[index, ms], ...], 5 the last
--      partition and 6 what it is worth less than the others
-- Returns 1; 0 when another limiter's term has begun. O(partitions + watchers)
-- @include header index
if num(RES, 'term') ~= tonumber(ARGV[3]) then return 0 end
call('DEL', LEASES)
for _, lease in ipairs(cjson.decode(ARGV[4])) do
  call('ZADD', LEASES, text(lease[2]), lease[1])
end
call('HSET', RES, 'last', ARGV[5], 'lacking', ARGV[6])
for _, w in ipairs(call('SMEMBERS', WATCHERS)) do reindex(w) end
return 1
