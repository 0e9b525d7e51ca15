-- Write the options of watchers and of the batcher as the code has them. What the resource may give
-- is written once: from then on the store's figures count (set_capacity.lua).
-- ARGV 3 the resource as JSON ('' none): limits ([dimension, capacity, window], ...), dimensions,
--      grace, ramp (steps by limit), every, adaptive, factor, reserved; 4 batcher's name, 5 its
--      weight, 6 its floor and 7 that of its back-fills, parts of the capacity; then per watcher:
--      name, max_batch_size, max_attempts, max_concurrent, weight, by_key, max_dead, bisect,
--      key_capacity ('' none), key_window, key_concurrency (0 any)
-- Returns as JSON {dimensions, limits} as they stand in the store; '' when it has none. O(watchers)
-- @include header index
local function write_limits(resource)
  local fields = { 'limits', #resource.limits, 'dimensions', cjson.encode(resource.dimensions) }
  for n, limit in ipairs(resource.limits) do
    for i, name in ipairs({ 'dimension', 'capacity', 'window' }) do
      fields[#fields + 1], fields[#fields + 2] = nth(name, n), text(limit[i])
    end
  end
  for _, name in ipairs({ 'factor', 'reserved' }) do
    if resource[name] then
      fields[#fields + 1], fields[#fields + 2] = name, text(resource[name])
    end
  end
  call('HSET', RES, unpack(fields))
end

local function write_options(resource, name)
  call('HSET', RES, 'grace', math.max(resource.grace, num(RES, 'grace')), 'every', resource.every,
    'adaptive', resource.adaptive, 'weight:' .. name, ARGV[5], 'floor:' .. name, ARGV[6],
    'backfill_floor:' .. name, ARGV[7])
  for n = 1, #resource.limits do
    local step = resource.ramp[n]
    if step then call('HSET', RES, nth('ramp', n), text(step)) else call('HDEL', RES, nth('ramp', n)) end
  end
  local names = call('HGET', RES, 'batchers') or ''
  if not string.find(' ' .. names .. ' ', ' ' .. name .. ' ', 1, true) then
    call('HSET', RES, 'batchers', names == '' and name or names .. ' ' .. name)
  end
end

if ARGV[3] ~= '' then
  local resource = cjson.decode(ARGV[3])
  if call('HEXISTS', RES, 'capacity') == 0 then write_limits(resource) end
  write_options(resource, ARGV[4])
end
for i = 8, #ARGV, 11 do
  call('SADD', WATCHERS, ARGV[i])
  call('HSET', watcher_key(ARGV[i]), 'max_batch_size', ARGV[i + 1], 'max_attempts', ARGV[i + 2],
    'max_concurrent', ARGV[i + 3], 'weight', ARGV[i + 4], 'by_key', ARGV[i + 5],
    'max_dead', ARGV[i + 6], 'bisect', ARGV[i + 7],
    'key_capacity', ARGV[i + 8], 'key_window', ARGV[i + 9], 'key_concurrency', ARGV[i + 10])
  reindex(ARGV[i])
end
if call('HEXISTS', RES, 'capacity') == 0 then return '' end
local standing = {}
for n = 1, num(RES, 'limits') do
  standing[n] = { num(RES, nth('dimension', n)), text(num(RES, nth('capacity', n))),
    num(RES, nth('window', n)) }
end
return cjson.encode({ cjson.decode(call('HGET', RES, 'dimensions')), standing })
