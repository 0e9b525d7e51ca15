-- Remove operations that wait or are delayed, with all that is known of them, a bounded step a call.
-- ARGV 3 id of this step, 4 part: 'delayed' (of a watcher, or of all) or 'waiting', 5 watcher ('' all),
--      6 how many delayed ones, counted from the end, are to be left, 7 operations and 8 bytes
-- Returns as JSON {operations removed, delayed ones left so far, 1 when the part is over}. A group
-- that stays together goes as a whole. O(operations)
-- @include header blocks index walk together key_holds key_waits returning heads discarding
local last = call('HMGET', META, 'discard', 'discarded')
if last[1] == ARGV[3] then return last[2] end
local parts = { delayed = discard_delayed, waiting = discard_waiting }
parts[ARGV[4]]()
local said = cjson.encode({ removed, left, over and 1 or 0 })
call('HSET', META, 'discard', ARGV[3], 'discarded', said)
return said
