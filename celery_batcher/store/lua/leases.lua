-- What is leased of the resource and lasts longer than now.
-- Returns the worth of a partition ('' when nothing can be leased), the partition that is worth less
-- and by how much; then partitions and milliseconds until they end, in turn. O(partitions)
-- @include header
local c = call('HMGET', RES, 'factor', 'last', 'lacking')
local answer = { c[1] or '', c[2] or '-1', c[3] or '0' }
local rows = call('ZRANGEBYSCORE', LEASES, '(' .. text(now), '+inf', 'WITHSCORES')
for i = 1, #rows, 2 do
  answer[#answer + 1] = rows[i]
  answer[#answer + 1] = text(rows[i + 1] - now)
end
return answer
