-- Dead letters: a sorted set per watcher, a member a letter: its number (also the score), when it
-- died, the length of the reason, the reason, the entry.
local LETTER, LETTER_SIZE = '>I8I8I4', 20

-- The entry of a letter, and where it is in it.
local function open_letter(letter)
  local _, _, reason = struct.unpack(LETTER, letter)
  local at = LETTER_SIZE + 1 + reason
  return read_entry(letter, at), string.sub(letter, at)
end

local function died_at(letter)
  local _, at = struct.unpack(LETTER, letter)
  return at
end

local function count_dead(n, cost)
  add(META, 'dead', n)
  add(META, 'dead_cost', cost)
end

-- When there are more than the watcher may have, the oldest is dropped.
local function bury(w, entry, reason, cost)
  local number = call('HINCRBY', META, 'died', 1)
  local letter = struct.pack(LETTER, number, now, #reason) .. reason .. entry
  call('ZADD', dead_key(w), number, letter)
  count_dead(1, cost)
  local most = num(watcher_key(w), 'max_dead')
  if most > 0 and call('ZCARD', dead_key(w)) > most then
    count_dead(-1, -open_letter(call('ZPOPMIN', dead_key(w))[1]).cost)
    add(META, 'dropped', 1)
  end
end

local function find_letter(w, number)
  return call('ZRANGEBYSCORE', dead_key(w), number, number)[1]
end
