-- One step of the audit: count some of what is there, and when all of a part is counted, compare
-- its counters (walk.lua, compare.lua). A pass begins with the batches, all in its first step.
-- ARGV 3 id of this step, 4 milliseconds between the beginnings of two passes, 5 entries and
--      6 bytes to look at, 7 how many batches and holds are few enough for one look
-- Returns as JSON {milliseconds until there is more to do, 1 when a pass is over, counters compared
-- and found wrong in this pass, differences: {counter, watcher, counted, recorded, 1 if repaired},
-- why parts were skipped}. O(entries + bytes); the first step of a pass: O(batches + watchers)
-- @include header blocks index key_holds walk admission compare ledger walking walking_index
local id, every = ARGV[3], tonumber(ARGV[4])
local last = call('HMGET', WALK, 'id', 'answer', 'began')
if last[1] == id then return last[2] end

local walk_on = { delayed = walk_delayed, admitted = walk_admitted, waiting = walk_waiting }

local function answer(wait, over)
  local so_far = call('HMGET', WALK, 'compared', 'wrong')
  return cjson.encode({ text(wait), over, so_far[1] or '0', so_far[2] or '0', differences, skipped })
end

if not read_walk() then
  local wait = last[3] and last[3] + every - now or 0
  if wait > 0 and wait <= every then return answer(wait, 0) end
  walk = { pass = text(call('HINCRBY', WALK, 'pass', 1)) }
  call('HSET', WALK, 'began', now, 'compared', 0, 'wrong', 0)
  room.entries = room.entries - audit_ledger(tonumber(ARGV[7]))
  begin('delayed')
end
while walk and has_room() do walk_on[walk.part]() end

for _, name in ipairs({ 'part', 'watcher', 'prio', 'key', 'region', 'at' }) do
  local value = walk and walk[name]
  if value then call('HSET', WALK, name, value) else call('HDEL', WALK, name) end
end
add_gathered()
add(WALK, 'compared', compared)
add(WALK, 'wrong', #differences)
local began = num(WALK, 'began')
local said = walk and answer(0, 0) or answer(math.max(0, began + every - now), 1)
call('HSET', WALK, 'id', id, 'answer', said)
return said
