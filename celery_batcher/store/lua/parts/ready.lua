-- The operation that a watcher releases next, without a release.

-- The next operation of a watcher whose key does not wait, as far as is known: no key is asked.
-- O(groups and keys that wait in their ring, 100 at most)
local function first_ready(w, o)
  for at = 0, o.ns > 0 and 99 or -1 do
    local last = '(' .. text(ASIDE_FROM)
    local data = call('ZRANGEBYSCORE', together_key(w), '-inf', last, 'LIMIT', at, 1)[1]
    local head = data and head_of_group(data)
    if not head then break end
    if not key_waits(w, head.key) then return head end
  end
  for prio = 0, BACKFILL do
    local waiting = 0
    while o['n' .. prio] > 0 and waiting < 100 do
      local key = call('ZRANGE', ring_key(w, prio), waiting, waiting)[1]
      local block = key and first_block(w, prio, key)
      if not key then break end
      if not block then
        drop_key(w, prio, key)
      elseif key_waits(w, key) then
        waiting = waiting + 1
      else
        return head_of_key(prio, key, block)
      end
    end
  end
end

-- The first operation of a watcher all of whose keys wait at their caps, by the names of keys.
local function first_aside(w, o)
  local group = o.ns > 0 and call('ZRANGE', together_key(w), 0, 0)[1]
  if group then return head_of_group(group) end
  for prio = 0, BACKFILL do
    local key = o['n' .. prio] > 0 and call('ZRANGE', names_key(w, prio), 0, 0)[1]
    local block = key and first_block(w, prio, key)
    if block then return head_of_key(prio, key, block) end
  end
end
