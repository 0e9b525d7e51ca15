-- Close the resource for a while: nothing of it is released or claimed in the whole fleet.
-- ARGV 3 milliseconds. Returns 1 when that made it longer. O(1)
-- @include header limits slowing
local later = now + tonumber(ARGV[3])
if later <= num(RES, 'closed_until') then return 0 end
close_until(later)
return 1
