-- Give back the right to lease. ARGV 3 token. Returns 1 when it was this limiter's. O(1)
-- @include header
if call('HGET', RES, 'limiter') ~= ARGV[3] then return 0 end
call('HDEL', RES, 'limiter', 'limiter_until')
return 1
