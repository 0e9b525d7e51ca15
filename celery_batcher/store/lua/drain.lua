-- Admit no more messages, until the batcher is resumed (pause.lua).
-- Returns 1 when that changed something. O(1)
-- @include header
local before = num(META, 'draining')
call('HSET', META, 'draining', 1)
return 1 - before
