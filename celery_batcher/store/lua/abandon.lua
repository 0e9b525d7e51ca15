-- A worker takes back the batch of one of its own that will not settle it: a child that was killed,
-- or a handler that is ended with the worker.
-- ARGV 3 id, 4 owner: what the claim's nonce begins with, 5 reason, 6 1: as if it had failed; 0: as
--      it was
-- Returns {id, watcher, operations, {id, attempt, ... of those that died}}; {} when the owner has no
-- claim of it. O(operations)
-- @include header blocks index meters walk together key_holds key_waits returning dead putback ending
local id, owner = ARGV[3], ARGV[4] .. '/'
local b = read_batch(id)
if not b or b.state ~= 'claimed' or string.sub(b.nonce, 1, #owner) ~= owner then return {} end
if ARGV[6] == '1' then return take_back(id, b, 'abandoned', ARGV[5]) end
return { id, b.watcher, tonumber(b.n), close_batch(id, b, 'abandoned', 'g', '') }
