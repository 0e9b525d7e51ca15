-- Put watchers that do not claim on probe: batches unclaimed for a while, no claim running. Their
-- batches are recalled, so that they hold none of the capacity but one operation's.
-- ARGV 3 token, 4 milliseconds unclaimed, 5 how many at most
-- Returns per recalled batch {id, watcher, operations, {}}. O(operations of the batches)
-- @include header gate blocks index meters walk together key_holds key_waits returning dead putback
if call('HGET', META, 'turn') ~= ARGV[3] then return {} end
local recalled, operations, paused = {}, 0, gate() == 'paused'
for _, id in ipairs(call('ZRANGEBYSCORE', OPEN, '-inf', now - ARGV[4], 'LIMIT', 0, ARGV[5])) do
  local b = read_batch(id)
  local silent = num(watcher_key(b.watcher), 'cn') == 0 and b.probe ~= '1'
  if silent or paused then
    if not paused then call('HSET', watcher_key(b.watcher), 'probe', 1) end
    local died = close_batch(id, b, 'recalled', 'g', '')
    recalled[#recalled + 1] = { id, b.watcher, tonumber(b.n), died }
    operations = operations + b.n
    if operations >= TAKEN_BACK then break end
  end
end
return recalled
