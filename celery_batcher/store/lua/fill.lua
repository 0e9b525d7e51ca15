-- Rows of a back-fill enter the index, and its checkpoint moves behind them: both or neither.
-- ARGV 3 name, 4 token of the run, 5 milliseconds for which that keeps its right, 6 watcher, 7 number
--      of the chunk, 8 rows, 9 cost, 10 checkpoint, 11 skip, 12 total, 13 operations that the buffer
--      may hold, 14 pieces (staging.lua) as JSON, 15 their entries laid end to end, 16 operations and
--      17 bytes of a block
-- Returns 'taken', also when it was before; else why not: 'lost', 'held' (the back-fill is paused),
-- 'draining', 'paused' (the batcher is), 'full'. O(blocks), and O(registered operations)
-- @include header blocks index meters walk staging backfills
local name, token, w, number = ARGV[3], ARGV[4], ARGV[6], tonumber(ARGV[7])
local rows, cost, key = tonumber(ARGV[8]), tonumber(ARGV[9]), backfill_key(ARGV[3])
if not runs_backfill(name, token) then return 'lost' end
keep_backfill(name, tonumber(ARGV[5]))
if num(key, 'chunk') >= number then return 'taken' end
if backfill_field(name, 'paused') == '1' then return 'held' end
if num(META, 'draining') == 1 then return 'draining' end
local paused = num(META, 'paused_until')
if paused == -1 or paused > now then return 'paused' end
local buffered = num(META, 'admitted') + num(META, 'waiting') + num(META, 'delayed')
if buffered + rows > tonumber(ARGV[13]) or cost > headroom() then return 'full' end
begin(w)
local dropped = take(w, cjson.decode(ARGV[14]), ARGV[15], 1, tonumber(ARGV[16]), tonumber(ARGV[17]))
push_all()
add(META, 'duplicates', dropped)
add(key, 'rows', rows)
call('HSET', key, 'chunk', number, 'checkpoint', ARGV[10], 'skip', ARGV[11], 'total', ARGV[12],
  'fed_ms', now)
return 'taken'
