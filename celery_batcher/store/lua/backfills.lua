-- Back-fills as they are.
-- ARGV 3.. names; none: all. Returns now, then per back-fill its name and fields. O(back-fills)
-- @include header backfills
local names, answer = { unpack(ARGV, 3) }, { text(now) }
if #names == 0 then names = call('SMEMBERS', BACKFILLS) end
for _, name in ipairs(names) do
  answer[#answer + 1] = { name, call('HGETALL', backfill_key(name)) }
end
return answer
