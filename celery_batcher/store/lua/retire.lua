-- Remove dead letters of before a time, of all watchers.
-- ARGV 3 the time in ms, 4 how many at most. Returns how many. O(watchers + letters)
-- @include header blocks index dead
local before, most, n = tonumber(ARGV[3]), tonumber(ARGV[4]), 0
for _, w in ipairs(call('SMEMBERS', WATCHERS)) do
  while n < most do
    local letter = call('ZRANGE', dead_key(w), 0, 0)[1]
    if not letter or died_at(letter) >= before then break end
    call('ZREM', dead_key(w), letter)
    count_dead(-1, -open_letter(letter).cost)
    n = n + 1
  end
end
return n
