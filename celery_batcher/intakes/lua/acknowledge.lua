-- Let go of leased messages, from the oldest on.
-- KEYS 1 hash of the leases, 2 list of the messages. ARGV 1 number of the first, 2 of the last
-- Returns how many of them were still under lease. O(messages)
local head = tonumber(redis.call('HGET', KEYS[1], 'head'))
local first, last = tonumber(ARGV[1]), tonumber(ARGV[2])
if not head or first > head or last < head then return 0 end
redis.call('LTRIM', KEYS[2], last - head + 1, -1)
redis.call('HSET', KEYS[1], 'head', last + 1)
return last - head + 1
