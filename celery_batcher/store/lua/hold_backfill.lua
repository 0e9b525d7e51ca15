-- Pause a back-fill, or let it go on.
-- ARGV 3 name, 4 watcher, 5 '1' to pause. Returns 1 when that changed anything. O(1)
-- @include header backfills
local name, key = ARGV[3], backfill_key(ARGV[3])
if (backfill_field(name, 'paused') == '1') == (ARGV[5] == '1') then return 0 end
if ARGV[5] ~= '1' then return call('HDEL', key, 'paused') end
call('SADD', BACKFILLS, name)
call('HSET', key, 'watcher', ARGV[4], 'paused', 1)
return 1
