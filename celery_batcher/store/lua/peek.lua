-- The operations of a watcher that wait, those next in turn first: groups that stay together, then by
-- priority, keys in turns; those whose key waits at its caps last. It changes nothing.
-- ARGV 3 watcher, 4 how many at most, 5 bytes after which it is enough
-- Returns their entries. O(entries + keys looked at), 1,000 keys and 100 groups at most
-- @include header blocks index walk together key_holds key_waits heads peeking
local o, behind = read_watcher(w), {}
for rank = 0, o.ns > 0 and GROUPS - 1 or -1 do
  local row = call('ZRANGE', together_key(w), rank, rank, 'WITHSCORES')
  if not row[1] or not has_room() then break end
  if tonumber(row[2]) >= ASIDE_FROM or key_waits(w, head_of_group(row[1]).key) then
    behind[#behind + 1] = rank
  else
    see_group(row[1])
  end
end
for prio = 0, BACKFILL do
  if o['n' .. prio] > 0 then see_in_turns(prio, o['v' .. prio], TURN * (o.cost / math.max(1, o.n))) end
end
for _, rank in ipairs(behind) do
  if has_room() then see_group(call('ZRANGE', together_key(w), rank, rank)[1]) end
end
for prio = 0, BACKFILL do
  for _, name in ipairs(call('ZRANGE', names_key(w, prio), 0, KEYS_AT_ONCE - 1)) do
    if not has_room() then break end
    if not call('ZSCORE', ring_key(w, prio), name) or key_waits(w, name) then
      see_turn(reader(prio, name), math.huge, math.huge)
    end
  end
end
return found
