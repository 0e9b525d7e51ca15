-- Release one batch: the next watcher's, as large as its options, the capacity and the credit
-- allow. Check, then take: a refusal changes nothing but credit and the note of a head in need.
-- ARGV 3 token, 4 id of the batch, 5 hold_ms (window + grace), 6 window_ms, 7 flush_ms,
--      8 max_open_batches, 9 max_concurrent_batches (0 any), 10 batcher's name, 11 '1' limited
-- Returns {'batch', watcher, operations, cost, trigger, oldest_ms, age of the oldest in ms}
--      or {reason, milliseconds to wait, -1 unknown}. O(blocks of the batch)
-- @include header holds gate blocks index walk together returning budget cutting
local token, id, hold_ms = ARGV[3], ARGV[4], longest_hold(ARGV[5])
local function describe(b)
  return { 'batch', b[1], tonumber(b[2]), tonumber(b[3]), b[4], now - tonumber(b[5]) }
end
local known = call('HMGET', batch_key(id), 'watcher', 'n', 'cost', 'trigger', 'oldest')
if known[1] then return describe(known) end
if call('HGET', META, 'turn') ~= token then return { 'lost', 0 } end
bring_back()

local limited = ARGV[11] == '1'
local reason, wait = gate()
if reason then return { reason, wait } end
if limited then
  wait = guard(hold_ms)
  if wait > 0 then return { 'guard', wait } end
  lapse(hold_ms)
end
local open = num(META, 'open_batches')
local most = tonumber(ARGV[9])
if open >= tonumber(ARGV[8]) then return { 'open', -1 } end
if most > 0 and open + num(META, 'running_batches') >= most then return { 'concurrency', -1 } end

while true do
  local top = call('ZRANGE', RING, 0, 0, 'WITHSCORES')
  if #top == 0 then return { 'empty', next_due() } end
  local w, tag = top[1], math.max(tonumber(top[2]), num(META, 'vtime'))
  local o = read_watcher(w)
  local head = front(w, o)
  local budget = math.huge
  reason = nil
  if not head then
    reason = 'empty'
  elseif limited then
    budget, reason, wait = allow(head.cost, o)
  end
  if reason == 'park' or reason == 'empty' then
    call('ZREM', RING, w) -- a claim, a settlement or a new capacity brings it back
  elseif reason then
    return { reason, wait }
  else
    return describe(record(w, tag, o, cut(id, w, o, budget), limited))
  end
end
