-- Release one batch: the next watcher's, as large as its options, the capacity and the credit
-- allow. Check, then take: a refusal changes nothing but credit and the note of a head in need.
-- Back-fills have their turn when nothing else may be released for want of operations or credit.
-- ARGV 3 token, 4 id of the batch, 5 grace_ms, 6 flush_ms, 7 max_open_batches,
--      8 max_concurrent_batches (0 any), 9 batcher's name, 10 '1' limited
-- Returns {'batch', watcher, operations, cost, trigger, oldest_ms, age of the oldest in ms}
--      or {reason, milliseconds to wait, -1 unknown}. O(blocks of the batch)
-- @include header limits holds gate blocks index walk together returning credit budget cutting
local token, id = ARGV[3], ARGV[4]
local function describe(b)
  return { 'batch', b[1], tonumber(b[2]), tonumber(b[3]), b[4], now - tonumber(b[5]) }
end
local known = call('HMGET', batch_key(id), 'watcher', 'n', 'cost', 'trigger', 'oldest')
if known[1] then return describe(known) end
if call('HGET', META, 'turn') ~= token then return { 'lost', 0 } end
bring_back()

local limited, flush_ms, name = ARGV[10] == '1', tonumber(ARGV[6]), ARGV[9]
local reason, wait = gate()
if reason then return { reason, wait } end
if limited then
  read_limits(ARGV[5])
  wait = guard(longest_hold())
  if wait > 0 then return { 'guard', wait } end
  lapse()
  pay_debts()
end
local open = num(META, 'open_batches')
local most = tonumber(ARGV[8])
if open >= tonumber(ARGV[7]) then return { 'open', -1 } end
if most > 0 and open + num(META, 'running_batches') >= most then return { 'concurrency', -1 } end

-- Of the watchers in a ring, the first that may release a batch does.
-- Returns the batch, or nil, the reason and milliseconds.
local function release_from(ring, class)
  while true do
    local top = call('ZRANGE', ring, 0, 0, 'WITHSCORES')
    if #top == 0 then return nil, 'empty', next_due() end
    local w, tag = top[1], math.max(tonumber(top[2]), num(META, nth('vtime', class)))
    local o = read_watcher(w)
    local head = front(w, o, class)
    local budget, refused, after = { math.huge }, not head and 'empty' or nil, nil
    if head and limited then
      budget, refused, after = allow(CLASSES[class], head.costs, o, name, flush_ms)
    end
    if not refused then
      return describe(record(w, tag, o, cut(id, w, o, budget, class), limited, name))
    elseif refused == 'credit' or refused == 'capacity' then
      return nil, refused, after
    end
    call('ZREM', ring, w) -- a claim, a settlement, a new capacity or its time brings it back
    if refused == 'later' then call('ZADD', PARKED, now + PARKED_MS, w) end
  end
end

local batch
batch, reason, wait = release_from(RING, 1)
if batch then return batch end
if reason ~= 'capacity' then
  local why, after
  batch, why, after = release_from(BACK, 2)
  if batch then return batch end
  if reason == 'empty' then reason, wait = why, after end
end
return { reason, wait }
