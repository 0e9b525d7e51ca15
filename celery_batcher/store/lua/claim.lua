-- A worker takes a batch: once, and only while its cost fits what has started in the last window.
-- ARGV 3 id, 4 nonce of the claim, 5 grace_ms, 6 milliseconds until the deadline
-- Returns {'claimed', blocks, milliseconds until the deadline},
--      {'wait' | 'taken' | 'gone' | 'recalled'}. O(blocks)
-- @include header limits holds gate blocks index meters walk together key_holds key_waits returning dead putback
local id, nonce = ARGV[3], ARGV[4]
local b = read_batch(id)
if not b then return { 'gone' } end

local function claimed(deadline)
  return { 'claimed', call('LRANGE', blocks_key(id), 0, -1), deadline - now }
end
if b.state == 'claimed' then
  if b.nonce ~= nonce then return { 'taken' } end
  return claimed(tonumber(b.deadline))
end

local cost, costs, limited = tonumber(b.cost), costs_of_batch(b), b.held == '1'
local blocked = gate()
if limited and not blocked then
  read_limits(ARGV[5])
  lapse()
  if exceeds_capacity(costs) then
    close_batch(id, b, 'recalled', 'g', '')
    return { 'recalled' }
  end
  blocked = guard(longest_hold()) > 0 or not fits_what_started(costs)
end
if not blocked then
  local full, too_dear = key_refuses(b, tonumber(ARGV[5]))
  if too_dear then
    close_batch(id, b, 'recalled', 'g', '')
    return { 'recalled' }
  end
  blocked = full
end
if blocked then
  call('ZADD', OFFERS, 'XX', now, id)
  return { 'wait' }
end

local deadline = now + tonumber(ARGV[6])
call('HSET', batch_key(id), 'state', 'claimed', 'nonce', nonce, 'deadline', deadline,
  'started', now)
if limited then
  call('HSET', batch_key(id), 'ends', pack_costs(hold(costs)))
  hold_open(costs, -1)
end
claim_key(b, tonumber(ARGV[5]))
call('ZREM', OPEN, id)
call('ZREM', OFFERS, id)
call('ZADD', CLAIMED, deadline, id)
local n = tonumber(b.n)
for name, by in pairs({ open_batches = -1, open = -n, open_cost = -cost, running_batches = 1,
  running = n, running_cost = cost }) do
  add(META, name, by)
end
for name, by in pairs({ on = -1, oc = -cost, cn = 1 }) do add(watcher_key(b.watcher), name, by) end
call('HSET', watcher_key(b.watcher), 'probe', 0)
reindex(b.watcher)
return claimed(deadline)
