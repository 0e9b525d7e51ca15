-- Pause the batcher, or resume it, which ends a drain as well. The later end of two pauses wins.
-- ARGV 3 milliseconds (-1 until resumed, 0 resume now)
-- Returns 1 when that changed something. O(1)
-- @include header
local ms, paused = tonumber(ARGV[3]), num(META, 'paused_until')
if ms == 0 then
  local drained = call('HDEL', META, 'draining') == 1
  call('HSET', META, 'paused_until', 0)
  return (drained or paused == -1 or paused > now) and 1 or 0
end
local later = ms == -1 and -1 or now + ms
if paused == -1 or (later ~= -1 and later <= paused) then return 0 end
call('HSET', META, 'paused_until', later)
return 1
