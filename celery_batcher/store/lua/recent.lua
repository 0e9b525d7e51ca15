-- The batches that were released last, as lines: those in the ledger and those that ended.
-- ARGV 3 how many of each at most. Returns the lines, in no order. O(batches)
-- @include header index meters
local lines = call('LRANGE', meters.recent, 0, ARGV[3] - 1)
for _, ledger in ipairs({ OPEN, CLAIMED }) do
  for _, id in ipairs(call('ZREVRANGE', ledger, 0, ARGV[3] - 1)) do
    local of, b = call('HGETALL', batch_key(id)), {}
    for i = 1, #of, 2 do b[of[i]] = of[i + 1] end
    local state = b.state == 'claimed' and 'running' or 'released'
    lines[#lines + 1] = meters.line(id, b, state, -1, meters.open_tally(b.tally), b.n, b.cost)
  end
end
return lines
