-- Take a batch out of the ledger; its operations go where `outcomes` says, a character each:
-- d done, r again with one attempt more (or dead, when they are used up), g back to its place,
-- x dead. A single character stands for all.

local function bury(w, entry, reason, cost)
  call('RPUSH', dead_key(w), struct.pack('>I8I4', now, #reason) .. reason .. entry)
  add(META, 'dead', 1)
  add(META, 'dead_cost', cost)
end

-- To its place among those that came back.
local function put_back(w, outcome, data, entry, sequence)
  local bytes = string.sub(data, entry.at, entry.at + entry.bytes - 1)
  if outcome == 'r' then
    bytes = string.sub(bytes, 1, 8) .. struct.pack('>H', math.min(entry.attempt + 1, 65535))
      .. string.sub(bytes, 11)
  end
  local key = key_of(data, entry)
  call('ZADD', returned_key(w, entry.prio, key), sequence,
    pack_block(sequence, 1, entry.cost, weigh(entry.cost), bytes))
  join(w, entry.prio, key)
  count_waiting(w, entry.prio, 1, entry.cost)
end

-- outcomes: one for all, or one for each operation of the blocks.
local function give_back(w, outcomes, blocks, reason)
  local tries, done, i = num(watcher_key(w), 'max_attempts'), 0, 0
  for _, data in ipairs(blocks) do
    local block, at = open_block(data), BLOCK_SIZE + 1
    for nth = 0, block.n - 1 do
      local entry, stop = read_entry(data, at)
      i = i + 1
      local outcome = #outcomes == 1 and outcomes or string.sub(outcomes, i, i)
      if outcome == 'r' and tries > 0 and entry.attempt >= tries then outcome = 'x' end
      if outcome == 'r' or outcome == 'g' then
        put_back(w, outcome, data, entry, block.sequence + nth)
      else
        if entry.registered then call('SREM', IDS, id_of(data, entry)) end
        if outcome == 'x' then
          bury(w, string.sub(data, at, stop - 1), reason, entry.cost)
        else
          done = done + 1
        end
      end
      at = stop
    end
  end
  add(META, 'done', done)
end

-- b: the batch as HGETALL's pairs in a table; outcomes 'd' alone never reads the blocks.
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
    give_back(b.watcher, outcomes, call('LRANGE', blocks_key(id), 0, -1), reason)
  end
  call('DEL', batch_key(id), blocks_key(id))
  reindex(b.watcher)
end

local function read_batch(id)
  local pairs_, b = call('HGETALL', batch_key(id)), {}
  for i = 1, #pairs_, 2 do b[pairs_[i]] = pairs_[i + 1] end
  return b.watcher and b or nil
end
