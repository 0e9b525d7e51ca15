-- Remove dead letters for good.
-- ARGV 3 watcher, 4.. numbers of letters. Returns how many there were. O(letters)
-- @include header blocks index dead
local w, n = ARGV[3], 0
for i = 4, #ARGV do
  local letter = find_letter(w, ARGV[i])
  if letter then
    call('ZREM', dead_key(w), letter)
    count_dead(-1, -open_letter(letter).cost)
    n = n + 1
  end
end
return n
