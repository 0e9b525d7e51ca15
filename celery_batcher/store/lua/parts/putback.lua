-- Take a batch out of the ledger; its operations go where `outcomes` says, a character each:
-- d done, r again with one attempt more (or dead, when they are used up), a the same and alone from
-- now on, h again in halves, g back to its place, x dead, - undecided. A single character stands
-- for all.

local TAKEN_BACK = 1000 -- operations that a script takes back before it leaves the rest to the next

local function with_attempt(entry, attempt)
  return string.sub(entry, 1, 8) .. struct.pack('>H', math.min(attempt, 65535))
    .. string.sub(entry, 11)
end

-- What a batch of one that failed becomes, and one of more: a raise, or a worker that was lost, names
-- no culprit.
local function failed(b)
  if call('HGET', watcher_key(b.watcher), 'bisect') ~= '1' then return 'r' end
  return tonumber(b.n) > 1 and 'h' or 'a'
end

-- The two halves of what failed together meet no others until they have not failed.
local function halve(w, singles, delay)
  local halves, middle = { {}, {} }, math.ceil(#singles / 2)
  for i, single in ipairs(singles) do
    local half = halves[i <= middle and 1 or 2]
    half[#half + 1] = single
  end
  keep_together(w, halves[1], delay)
  keep_together(w, halves[2], delay)
  add(META, 'halved', 1)
end

-- outcomes: one for all, or one for each operation of the blocks. details: what single operations
-- have of their own, by position from 0: reasons, and delays in ms; or nil.
-- Returns the undecided, each in a block; operations and cost of the others; which of them died: ids
-- and attempts in turn; and how many have which outcome (meters.lua).
local function give_back(b, outcomes, blocks, reason, details)
  local w, kept, n, total = b.watcher, {}, 0, 0
  local places, tally = { d = 1, r = 2, a = 2, h = 3, g = 4, x = 5 }, { 0, 0, 0, 0, 0, 0 }
  local tries, together = num(watcher_key(w), 'max_attempts'), b.trigger == 'bisect'
  local halving, backing, pause, died = {}, {}, 0, {}
  local reasons, delays = details and details.reasons or {}, details and details.delays or {}
  local position = 0
  for _, data in ipairs(blocks) do
    local block, at = open_block(data), BLOCK_SIZE + 1
    for nth = 0, block.n - 1 do
      local entry, stop = read_entry(data, at)
      local bytes, own = string.sub(data, at, stop - 1), tostring(position)
      position = position + 1
      local outcome = #outcomes == 1 and outcomes or string.sub(outcomes, position, position)
      local again = outcome == 'r' or outcome == 'a'
      if again and tries > 0 and entry.attempt >= tries then outcome, again = 'x', false end
      if again then bytes = with_attempt(bytes, entry.attempt + 1) end
      if outcome == 'a' then bytes = alone(bytes) end
      local single = pack_block(block.sequence + nth, 1, entry.cost, weigh(entry.cost), bytes)
      if outcome == '-' then
        kept[#kept + 1] = single
      elseif outcome == 'h' then
        halving[#halving + 1], pause = single, math.max(pause, delays[own] or 0)
      elseif outcome == 'g' and together then
        backing[#backing + 1] = single
      elseif again and (delays[own] or 0) > 0 then
        wait_later(w, single, delays[own])
      elseif again or outcome == 'g' then
        wait_again(w, single)
      else
        if entry.registered then call('SREM', IDS, id_of(data, entry)) end
        if outcome == 'x' then
          bury(w, bytes, reasons[own] or reason, entry.cost)
          died[#died + 1] = id_of(data, entry)
          died[#died + 1] = entry.attempt
        end
      end
      if outcome ~= '-' then
        n, total = n + 1, total + entry.cost
        tally[places[outcome]] = tally[places[outcome]] + 1
      end
      at = stop
    end
  end
  if #halving > 0 then halve(w, halving, pause) end
  keep_together(w, backing, 0)
  add(META, 'done', tally[1])
  tally[6] = total
  return kept, n, total, died, tally
end

-- b: the batch as HGETALL's pairs in a table; outcomes 'd' alone never reads the blocks. `ended`: the
-- state in which it ends.
-- Returns which of its operations died, as give_back does.
local function close_batch(id, b, ended, outcomes, reason, details, forget)
  local W, n, cost = watcher_key(b.watcher), tonumber(b.n), tonumber(b.cost)
  local state, died, tally = b.state == 'claimed' and 'running' or 'open', {}, { n, 0, 0, 0, 0, cost }
  add(META, state .. '_batches', -1)
  add(META, state, -n)
  add(META, state .. '_cost', -cost)
  if b.state == 'claimed' then
    add(W, 'cn', -1)
    call('ZREM', CLAIMED, id)
  else
    add(W, 'on', -1)
    add(W, 'oc', -cost)
    if b.held == '1' then hold_open(costs_of_batch(b), -1) end
    call('ZREM', OPEN, id)
    call('ZREM', OFFERS, id)
  end
  if outcomes == 'd' and forget then
    if #forget > 0 then call('SREM', IDS, unpack(forget)) end
    add(META, 'done', n)
  else
    local blocks = call('LRANGE', blocks_key(id), 0, -1)
    died, tally = select(4, give_back(b, outcomes, blocks, reason, details))
  end
  let_key_go(id, b)
  call('DEL', batch_key(id), blocks_key(id))
  meters.end_batch(id, b, ended, tally)
  reindex(b.watcher)
  return died
end

local function read_batch(id)
  local pairs_, b = call('HGETALL', batch_key(id)), {}
  for i = 1, #pairs_, 2 do b[pairs_[i]] = pairs_[i + 1] end
  return b.watcher and b or nil
end

-- Whether outcomes were meant for another state of the batch, before a commit whose answer was lost.
local function misses(b, outcomes) return #outcomes > 1 and #outcomes ~= tonumber(b.n) end

-- The details of a settlement as JSON, or ''.
local function read_details(text) return text ~= '' and cjson.decode(text) or nil end
