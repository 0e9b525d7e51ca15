-- Look for an operation by its id, a bounded step a call: operations have no index by id.
-- ARGV 3 id, 4 part: 'batches', 'heads' (the first block of each queue), 'waiting', 'delayed' or
--      'dead', 5 watcher ('' where the part is the batcher's), 6 cursor ('' to begin),
--      7 elements and 8 bytes to look at
-- Returns operations looked at, cursor ('' at the end); then, when it is found: its state, watcher,
-- entry, operations and cost before it in its queue, batch, milliseconds, reason. O(elements + bytes)
-- @include header blocks index walk together dead seeking
local seen = { batches = seek_batches, heads = seek_waiting, waiting = seek_waiting,
  delayed = seek_delayed, dead = seek_dead }
while not found and not over and has_room() do seen[ARGV[4]]() end
if not found then return { looked, over and '' or cjson.encode(cursor) } end
return { looked, '', found.state, found.w, found.entry, text(found.n or 0), text(found.cost or 0),
  found.batch or '', text(found.ms or 0), found.reason or '' }
