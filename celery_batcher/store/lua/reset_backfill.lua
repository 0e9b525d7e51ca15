-- Forget a back-fill: its next run is the first, from the beginning.
-- ARGV 3 name. Returns 1, also when it was not known; 0 while somebody runs it. O(1)
-- @include header backfills
if backfill_leased(ARGV[3]) then return 0 end
call('DEL', backfill_key(ARGV[3]))
call('SREM', BACKFILLS, ARGV[3])
return 1
