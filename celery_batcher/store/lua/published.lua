-- Note that the tasks of batches were published; what is still open is offered again later. Its
-- workers are given time to claim it from the first publication on (probe.lua).
-- ARGV 3.. ids of batches. Returns how many of them are still unclaimed. O(batches)
-- @include header index
local open = 0
for i = 3, #ARGV do
  local id = ARGV[i]
  if call('ZSCORE', OFFERS, id) then
    if call('HSETNX', batch_key(id), 'published', 1) == 1 then call('ZADD', OPEN, 'XX', now, id) end
    call('ZADD', OFFERS, 'XX', 'GT', now + 5000, id)
    open = open + 1
  end
end
return open
