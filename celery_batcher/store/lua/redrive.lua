-- Dead letters become operations that wait, in their first attempt and as if they came now. One whose
-- registered id lives again stays dead.
-- ARGV 3 watcher, 4.. numbers of letters. Returns how many wait. O(letters)
-- @include header blocks index meters walk dead
local w, n = ARGV[3], 0
for i = 4, #ARGV do
  local letter = find_letter(w, ARGV[i])
  if letter then
    local entry, bytes = open_letter(letter)
    if not entry.registered or call('SADD', IDS, id_of(letter, entry)) == 1 then
      local key, sequence = key_of(letter, entry), call('HINCRBY', META, 'sequence', 1)
      local flags = entry.flags - (has_flag(entry.flags, ALONE) and ALONE or 0)
      local first = string.sub(bytes, 1, 5) .. string.char(flags) .. string.sub(bytes, 7, 8)
        .. struct.pack('>H', 1) .. string.sub(bytes, 11)
      local length = call('RPUSH', queue_key(w, entry.prio, key),
        pack_block(sequence, 1, entry.cost, weigh(entry.cost), first))
      if length == 1 then join(w, entry.prio, key) end
      if walks('waiting', w) then
        barrier().note(entry.prio, key, 'q', math.huge, 0, 1, entry.cost)
      end
      count_waiting(w, entry.prio, 1, entry.cost)
      call('ZREM', dead_key(w), letter)
      count_dead(-1, -entry.cost)
      n = n + 1
    end
  end
end
meters.add(w, 15, n)
reindex(w)
return n
