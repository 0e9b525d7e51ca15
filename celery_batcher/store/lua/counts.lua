-- The numbers of the batcher, all of one moment.
-- Returns now, fields of META, fields of RES, set-aside messages, admitted messages, then per
-- watcher its name, fields, dead operations and enqueued_ms of the operation next in turn.
-- O(watchers)
-- @include header holds blocks index walk together returning cutting
if call('HEXISTS', RES, 'capacity') == 1 then lapse(2 ^ 50) end
local answer = { text(now), call('HGETALL', META), call('HGETALL', RES), call('LLEN', ASIDE),
  call('HLEN', ADMITTED) }
for _, w in ipairs(call('SMEMBERS', WATCHERS)) do
  local head = front(w, read_watcher(w))
  answer[#answer + 1] = { w, call('HGETALL', watcher_key(w)), call('ZCARD', dead_key(w)),
    head and head.enqueued or -1 }
end
return answer
