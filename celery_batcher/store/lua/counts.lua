-- The numbers of the batcher, all of one moment.
-- Returns now, fields of META, fields of RES, capacities that may be used now, set-aside messages,
-- admitted messages, the last flush (when, batches, operations, result), then per watcher its name, fields, dead operations and enqueued_ms of the operation next in turn.
-- O(watchers)
-- @include header limits holds blocks index walk together key_holds key_waits returning heads ready
local now_usable = {}
if call('HEXISTS', RES, 'capacity') == 1 then
  for n, limit in ipairs(read_limits(0)) do
    lapse_one(limit)
    now_usable[n] = text(limit.capacity)
  end
end
local answer = { text(now), call('HGETALL', META), call('HGETALL', RES), now_usable,
  call('LLEN', ASIDE), call('HLEN', ADMITTED),
  call('HMGET', KEYS[22], 'at', 'batches', 'operations', 'reason') }
for _, w in ipairs(call('SMEMBERS', WATCHERS)) do
  local o = read_watcher(w)
  local head = first_ready(w, o) or first_aside(w, o)
  answer[#answer + 1] = { w, call('HGETALL', watcher_key(w)), call('ZCARD', dead_key(w)),
    head and head.enqueued or -1 }
end
return answer
