-- Give back the right to lease. The term goes on if nobody else takes it meanwhile.
-- ARGV 3 token. Returns 1 when it was this limiter's. O(1)
-- @include header
if call('HGET', RES, 'limiter') ~= ARGV[3] then return 0 end
call('HDEL', RES, 'limiter_until')
return 1
