-- Give back the right to run a back-fill.
-- ARGV 3 name, 4 token of the run, 5 '1' when the run is complete, 6 the error that ended it, or ''
-- Returns 1; 0 when it was another's, or given back before. O(1)
-- @include header backfills
local name, key = ARGV[3], backfill_key(ARGV[3])
if not runs_backfill(name, ARGV[4]) then return 0 end
end_lease(name)
if ARGV[5] == '1' then call('HSET', key, 'done', 1, 'ended_ms', now) end
if ARGV[6] ~= '' then call('HSET', key, 'error', ARGV[6]) end
return 1
