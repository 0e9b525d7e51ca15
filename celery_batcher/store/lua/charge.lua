-- Settle what operations of a claimed batch really cost. What they cost less is free at once, as
-- capacity and as credit; what they cost more is owed, and later releases pay it. What was owed
-- and is taken back is owed no more.
-- ARGV 3 id, 4 nonce of the claim, 5 which charge of this claim it is, 6 by dimension, as text, the
--      difference to what was said, of all charges of this claim, 7 what to learn as JSON ('' nothing):
--      [[cost key, cost, ...], ...]
-- Returns 1, also when this charge was recorded before; 0 when the claim had ended. O(limits, samples)
-- @include header limits holds index estimating
local key = batch_key(ARGV[3])
local b = call('HMGET', key, 'state', 'nonce', 'held', 'ends', 'charges', 'watcher', 'owed', 'freed')
if b[1] ~= 'claimed' or b[2] ~= ARGV[4] then return 0 end
if (tonumber(b[5]) or 0) >= tonumber(ARGV[5]) then return 1 end
-- A script whose first write only removes runs on a server whose memory is full.
call('ZREMRANGEBYSCORE', SETTLED, '-inf', now - 60000)
call('HSET', key, 'charges', ARGV[5])
if ARGV[7] ~= '' then learn(b[6], cjson.decode(ARGV[7])) end
if b[3] ~= '1' then return 1 end
local ends, owed, freed = open_costs(b[4]), open_costs(b[7] or ''), open_costs(b[8] or '')
local more, less = {}, {}
for d, total in ipairs(open_costs(ARGV[6])) do
  owed[d], freed[d] = owed[d] or 0, freed[d] or 0
  local change = total - (owed[d] - freed[d])
  more[d] = math.max(change, -owed[d])
  less[d] = more[d] - change
  owed[d], freed[d] = owed[d] + more[d], freed[d] + less[d]
end
for n, limit in ipairs(read_limits(0)) do
  local debt = nth('debt', n)
  add(RES, debt, math.max(more[limit.dimension] or 0, -num(RES, debt)))
  local free = less[limit.dimension] or 0
  if free > 0 and (ends[n] or 0) > now then
    local refund = num(RES, nth('refund', n)) + let_go_of(limit, ends[n], free)
    call('HSET', RES, nth('refund', n), text(math.min(refund, limit.capacity)), 'freed_ms', now)
  end
end
call('HSET', key, 'owed', pack_costs(owed), 'freed', pack_costs(freed))
return 1
