-- Batches whose Celery task is due to be published: never published, refused at the claim, or
-- unclaimed for long. The next time doubles from 5 seconds to 5 minutes.
-- ARGV 3 token, 4 how many at most
-- Returns per batch {id, watcher, operations, cost, trigger, age of the oldest, costs by dimension if
-- there are several}. O(batches)
-- @include header gate index
if call('HGET', META, 'turn') ~= ARGV[3] or gate() then return {} end
local offers = {}
for _, id in ipairs(call('ZRANGEBYSCORE', OFFERS, '-inf', now, 'LIMIT', 0, ARGV[4])) do
  local b = call('HMGET', batch_key(id), 'watcher', 'n', 'cost', 'trigger', 'oldest', 'costs')
  if b[1] then
    local tries = call('HINCRBY', batch_key(id), 'offers', 1)
    call('ZADD', OFFERS, now + math.min(5000 * 2 ^ (tries - 1), 300000), id)
    offers[#offers + 1] = { id, b[1], tonumber(b[2]), tonumber(b[3]), b[4], now - tonumber(b[5]),
      b[6] or '' }
  else
    call('ZREM', OFFERS, id)
  end
end
return offers
