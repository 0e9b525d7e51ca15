-- Note that flushing is wanted for a while; wake the turn when asked to.
-- ARGV 3 milliseconds for which it is wanted, 4 '1' to wake the turn
-- Returns milliseconds that the present turn still lasts, 0 when there is none. O(1)
-- @include header
local wanted = now + tonumber(ARGV[3])
if wanted > num(META, 'wanted_until') then call('HSET', META, 'wanted_until', wanted) end
add(META, 'wakes', tonumber(ARGV[4]))
return math.max(0, num(META, 'turn_until') - now)
