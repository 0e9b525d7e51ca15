-- Void admissions whose message never came: their lane was seen empty long after they were made.
-- It walks the books in steps, one a call.
-- ARGV 3 milliseconds that a publish may take, 4 how many records to look at
-- Returns how many were void. O(records)
-- @include header index walk admission
local cursor = call('HGET', META, 'void_cursor') or '0'
local scan = call('HSCAN', ADMITTED, cursor, 'COUNT', ARGV[4])
call('HSET', META, 'void_cursor', scan[1])
for i = 1, #scan[2], 2 do
  local at, w = string.match(scan[2][i + 1], '^%d+:%d+:(%d+):%d+:(.*)$')
  if num(watcher_key(w), 'empty_ms') - tonumber(at) > tonumber(ARGV[3]) then
    call('ZREM', REPEATED, scan[2][i]) -- it was never staged: the next to arrive is the first
    discharge(scan[2][i])
  end
end
return close_books()
