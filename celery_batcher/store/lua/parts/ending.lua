-- How a claim ends that did not settle.

-- Its operations are given back as if they had failed. Returns what the callers answer per batch.
local function take_back(id, b, ended, reason)
  return { id, b.watcher, tonumber(b.n), close_batch(id, b, ended, failed(b), reason) }
end

local function settled_before(id, nonce) return call('ZSCORE', SETTLED, id .. '/' .. nonce) end

-- Outcomes that come when their claim has ended: refused, and counted once a claim.
local function refuse(id, nonce)
  call('ZREMRANGEBYSCORE', SETTLED, '-inf', now - 60000)
  add(META, 'late', call('ZADD', SETTLED, 'NX', now, id .. '/' .. nonce .. '/late'))
  return 0
end
