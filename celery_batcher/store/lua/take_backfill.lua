-- Take the right to run a back-fill, or keep it. Who takes it begins a run if none has begun or
-- (ARGV 8) the one before is complete, and else goes on with that.
-- ARGV 3 name, 4 watcher, 5 token, 6 milliseconds, 7 owner, 8 '1': again, 9 '1': only keep it
-- Returns 1 when it is the caller's; 0 when another runs it, or there is nothing to run. O(1)
-- @include header backfills
local name, w, token, ms, owner = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
local key = backfill_key(name)
if not runs_backfill(name, token) then
  if ARGV[9] == '1' or backfill_leased(name) then return 0 end
  local done = backfill_field(name, 'done') == '1'
  if done and ARGV[8] ~= '1' then return 0 end
  call('SADD', BACKFILLS, name)
  if done or num(key, 'run') == 0 then
    call('HDEL', key, 'done', 'chunk', 'rows', 'checkpoint', 'skip', 'total', 'ended_ms', 'fed_ms')
    call('HINCRBY', key, 'run', 1)
    call('HSET', key, 'began_ms', now)
  end
  call('HDEL', key, 'error')
  call('HSET', key, 'watcher', w, 'token', token, 'owner', owner, 'since_ms', now, 'since_rows',
    num(key, 'rows'))
end
keep_backfill(name, ms)
return 1
