-- Take a batch out of the ledger; its operations go where `outcomes` says, a character each:
-- d done, r again with one attempt more (or dead, when they are used up), g back to its place,
-- x dead. A single character stands for all.

local function bury(w, entry, reason, cost)
  call('RPUSH', dead_key(w), struct.pack('>I8I4', now, #reason) .. reason .. entry)
  add(META, 'dead', 1)
  add(META, 'dead_cost', cost)
end

local function give_back(w, outcomes, entries, reason)
  local tries = num(watcher_key(w), 'max_attempts')
  local done, waiting = 0, {}
  for i, entry in ipairs(entries) do
    local outcome = #outcomes == 1 and outcomes or string.sub(outcomes, i, i)
    local flags, prio, attempt, cost, _, id, key = parse(entry)
    if outcome == 'r' and tries > 0 and attempt >= tries then outcome = 'x' end
    if outcome == 'r' then
      entry = string.sub(entry, 1, 16) .. struct.pack('>H', math.min(attempt + 1, 65535))
        .. string.sub(entry, 19)
    end
    if outcome == 'r' or outcome == 'g' then
      local sequence = struct.unpack('>I8', entry)
      call('ZADD', returned_key(w, prio, key), sequence, entry)
      join(w, prio, key)
      count_waiting(w, prio, 1, cost)
    else
      if math.floor(flags / 2) % 2 == 1 then call('SREM', IDS, id) end
      if outcome == 'x' then bury(w, entry, reason, cost) else done = done + 1 end
    end
  end
  add(META, 'done', done)
end

-- The stored entries of a batch, which lie end to end.
local function split(data)
  local entries, at = {}, 1
  while at <= #data do
    local stop = at + 11 + struct.unpack('>I4', data, at + 8)
    entries[#entries + 1] = string.sub(data, at, stop)
    at = stop + 1
  end
  return entries
end

-- b: the batch as HGETALL's pairs in a table; outcomes 'd' alone never reads the entries.
local function close_batch(id, b, outcomes, reason, forget)
  local W, n, cost = watcher_key(b.watcher), tonumber(b.n), tonumber(b.cost)
  local state = b.state == 'claimed' and 'running' or 'open'
  add(META, state .. '_batches', -1)
  add(META, state, -n)
  add(META, state .. '_cost', -cost)
  if b.state == 'claimed' then
    add(W, 'cn', -1)
    call('ZREM', CLAIMED, id)
  else
    add(W, 'on', -1)
    add(W, 'oc', -cost)
    if b.held == '1' then add(RES, 'open', -cost) end
    call('ZREM', OPEN, id)
    call('ZREM', OFFERS, id)
  end
  if outcomes == 'd' and forget then
    if #forget > 0 then call('SREM', IDS, unpack(forget)) end
    add(META, 'done', n)
  else
    give_back(b.watcher, outcomes, split(call('GET', entries_key(id))), reason)
  end
  call('DEL', batch_key(id), entries_key(id))
  reindex(b.watcher)
end

local function read_batch(id)
  local pairs_, b = call('HGETALL', batch_key(id)), {}
  for i = 1, #pairs_, 2 do b[pairs_[i]] = pairs_[i + 1] end
  return b.watcher and b or nil
end
