-- What bears upon the next batch of a watcher, all of one moment. It changes nothing; what has ended
-- is dropped, as everywhere.
-- ARGV 3 watcher ('' none), 4 grace_ms, 5 flush_ms, 6 batcher's name, 7 costs of the operation in
--      question ('' of the one next in turn), 8 its class: 1 urgent, 2 a back-fill, 9 '1' limited,
--      10 its key
-- Returns numbers of the batcher; the watcher's row as in counts.lua; the entry next in turn or '';
-- per limit dimension, capacity, window, usable, held with an end, held without, debt, credit,
-- milliseconds until there is room; per batcher name, weight, 1 if it is in need, costs that its
-- unclaimed batches hold, costs that it is left before this one; of a capped key the row of
-- key_outlook.lua. O(batchers + holds looked at)
-- @include header limits holds gate blocks index walk together key_holds key_waits returning sharing heads ready
-- @include explaining key_outlook
local entry, limit_rows, batcher_rows = entry_of(), {}, {}
costs = costs or {}
if limited then
  read_limits(ARGV[4])
  lapse()
  local standing = standing_of(class, name, costs, flush_ms)
  for n, limit in ipairs(limits) do limit_rows[n] = limit_row(limit) end
  for known in string.gmatch(call('HGET', RES, 'batchers') or '', '%S+') do
    batcher_rows[#batcher_rows + 1] = batcher_row(known, standing)
  end
end
local paused = num(META, 'paused_until')
local numbers = { now, paused == -1 and -1 or math.max(0, paused - now),
  math.max(0, num(RES, 'closed_until') - now),
  limited and math.max(0, num(RES, 'guard_until') - now) or 0,
  math.max(0, num(META, 'turn_until') - now), num(META, 'draining'), num(META, 'admitted'),
  num(META, 'open_batches'), num(META, 'running_batches'),
  num(META, 'admitted') + num(META, 'waiting') + num(META, 'delayed'),
  num(META, 'admitted_cost') + num(META, 'waiting_cost') + num(META, 'delayed_cost'),
  due(), last_due(), call('ZCARD', RING) + call('ZCARD', BACK), num(watcher_key(w), 'max_concurrent'),
  o.oc, ready and -1 or head and first_key_due(w) or -1, o.ns, o.n0, o.n1, o.n2 }
for i, number in ipairs(numbers) do numbers[i] = text(number) end
local row = { w, call('HGETALL', watcher_key(w)), call('ZCARD', dead_key(w)), head and head.enqueued or -1 }
return { numbers, row, entry, limit_rows, batcher_rows, key_row(w, o, key, costs[1] or 0) }
