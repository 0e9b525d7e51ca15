-- Take the turn, or keep it. It is free when nobody has it or its time is over.
-- ARGV 3 token, 4 milliseconds it lasts, 5 '1' to take it, '0' only to keep it
-- Returns mine, milliseconds for which it is wanted, count of wake-ups, operations waiting, then
--      active lanes. O(lanes)
-- @include header
local holder, ends = call('HGET', META, 'turn'), num(META, 'turn_until')
local mine = holder == ARGV[3]
if not mine and ARGV[5] == '1' and (not holder or ends <= now) then
  call('HSET', META, 'turn', ARGV[3])
  call('HINCRBY', META, 'epoch', 1)
  mine = true
end
if not mine then return { 0, 0, 0, 0 } end
call('HSET', META, 'turn_until', now + tonumber(ARGV[4]))
local answer = { 1, num(META, 'wanted_until') - now, num(META, 'wakes'), num(META, 'waiting') }
for _, lane in ipairs(call('SMEMBERS', LANES)) do answer[#answer + 1] = lane end
return answer
