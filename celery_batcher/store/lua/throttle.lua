-- Close the resource because its store asked for less and did not say for how long: for a second,
-- and twice as long each time it asks again before it was open for as long as it was closed.
-- ARGV 3 longest milliseconds, 4 jitter: the part of the time that is left out, 0 to 1
-- Returns milliseconds until it opens. While it is closed nothing changes. O(1)
-- @include header limits slowing
local closed, last = num(RES, 'closed_until'), num(RES, 'throttled_ms')
if closed > now then return closed - now end
local again = last > 0 and now - closed < last
local ms = math.min(again and 2 * last or 1000, tonumber(ARGV[3]))
local later = now + math.max(1, math.floor(ms * (1 - ARGV[4])))
call('HSET', RES, 'throttled_ms', ms)
close_until(later)
return later - now
