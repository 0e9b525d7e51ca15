-- Release one batch: the next watcher's, as large as its options, the capacity and the credit
-- allow. Check, then take: a refusal ends a flush, which is counted, and changes nothing else but
-- credit and the note of a head in need.
-- ARGV 3 token, 4 id of the batch, 5 grace_ms, 6 flush_ms, 7 max_open_batches,
--      8 max_concurrent_batches (0 any), 9 batcher's name, 10 '1' limited,
--      11 batches and 12 operations that this flush has released so far
-- Returns {'batch', watcher, operations, cost, trigger, age of the oldest in ms, costs by dimension if
--      there are several} or {reason, milliseconds to wait, -1 unknown, whether charges freed capacity
--      lately}. O(blocks of the batch)
-- @include header limits holds gate blocks index meters walk together key_holds key_waits returning sharing
-- @include budget heads cutting
local token, id = ARGV[3], ARGV[4]
local function describe(b)
  return { 'batch', b[1], tonumber(b[2]), tonumber(b[3]), b[4], now - tonumber(b[5]), b[6] or '' }
end
local known = call('HMGET', batch_key(id), 'watcher', 'n', 'cost', 'trigger', 'oldest', 'costs')
if known[1] then return describe(known) end
if call('HGET', META, 'turn') ~= token then return { 'lost', 0 } end
bring_back()
lapse_keys(tonumber(ARGV[5]))

local limited, flush_ms, name = ARGV[10] == '1', tonumber(ARGV[6]), ARGV[9]
local reason, wait = gate()
local function refuse(...) return meters.end_flush(id, ARGV[11], ARGV[12], ...) end
if reason then return refuse(reason, wait) end
if limited then
  read_limits(ARGV[5])
  wait = guard(longest_hold())
  if wait > 0 then return refuse('guard', wait) end
  lapse()
  pay_debts()
end
local open = num(META, 'open_batches')
local most = tonumber(ARGV[8])
if open >= tonumber(ARGV[7]) then return refuse('open', -1) end
if most > 0 and open + num(META, 'running_batches') >= most then return refuse('concurrency', -1) end

-- Of the watchers in the ring of a class, the first that may release a batch does.
-- Returns the batch, or nil, the reason and milliseconds.
local function release_from(class, rank)
  local ring = class == 1 and RING or BACK
  while true do
    local top = call('ZRANGE', ring, 0, 0, 'WITHSCORES')
    if #top == 0 then
      if limited then forget_need(class, name) end
      return nil, 'empty', next_due()
    end
    local w, tag = top[1], math.max(tonumber(top[2]), num(META, nth('vtime', class)))
    local o = read_watcher(w, tonumber(ARGV[5]))
    local head = front(w, o, class)
    local standing = head and limited and standing_of(class, name, head.costs, flush_ms)
    if standing then begin_to_earn(standing) end
    if standing and standing.rank > rank then return nil, 'rank', -1 end
    local budget, refused, after = { math.huge }, not head and 'empty' or nil, nil
    if standing then budget, refused, after = allow(standing, head.costs, o, flush_ms) end
    if not refused then
      budget[1] = math.min(budget[1], head.room)
      return describe(record(w, tag, o, cut(id, w, o, budget, class), standing))
    elseif refused == 'credit' or refused == 'capacity' then
      return nil, refused, after
    end
    call('ZREM', ring, w) -- a claim, a settlement, a new capacity or its time brings it back
    if refused == 'later' then call('ZADD', PARKED, now + PARKED_MS, w) end
  end
end

-- Back-fills come first as far as their floor covers them, and else when there is nothing urgent.
local batch
if limited then batch = release_from(2, 0) end
if batch then return batch end
batch, reason, wait = release_from(1, 1)
if not batch and reason == 'empty' then batch, reason, wait = release_from(2, 2) end
if batch then return batch end
local freed = limited and now - num(RES, 'freed_ms') <= flush_ms and num(META, 'waiting') > 0
return refuse(reason, wait, freed and 1 or 0)
