-- Lanes were seen empty: unmark them, unless a message of theirs is still in the books.
-- ARGV 3.. watchers. Returns how many are unmarked. O(watchers)
-- @include header index
local unmarked = 0
for i = 3, #ARGV do
  call('HSET', watcher_key(ARGV[i]), 'empty_ms', now)
  if num(watcher_key(ARGV[i]), 'admitted') <= 0 then
    call('SREM', LANES, ARGV[i])
    unmarked = unmarked + 1
  end
end
return unmarked
