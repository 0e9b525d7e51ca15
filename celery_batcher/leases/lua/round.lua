-- One round of an owner: shorten what is unused, then keep and take up to its share.
-- The same as `Board.round` in sharing.py, which has the reasons.
-- KEYS 1 state: run_id, since, longest, round  2 leases: partition -> end:owner
--      3 entries: owner -> wanted:weight:until:round
-- ARGV 1 owner, 2 wanted, 3 weight, 4 partitions, 5 ms of a lease, 6 last round known or -1,
--      7 the time in ms (tests only, else ''), 8.. partition and ms until it is unused, in pairs
-- Returns {round, ms to wait or -1, ms of guard, partition, ms left, ...}.
-- O(partitions + owners^2)
local STATE, LEASES, ENTRIES = KEYS[1], KEYS[2], KEYS[3]
local owner, wanted, weight, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lease_ms, last = tonumber(ARGV[5]), tonumber(ARGV[6])
local call = redis.call
local time = call('TIME')
local now = tonumber(ARGV[7]) or time[1] * 1000 + math.floor(time[2] / 1000)

local function whole(n)
  return string.format('%.0f', n)
end

-- A server that does not know what it leased leases nothing until all of that is over.
local run = ARGV[7] ~= '' and 'tests' or string.match(call('INFO', 'server'), 'run_id:(%w+)')
if call('HGET', STATE, 'run_id') ~= run then
  call('HSET', STATE, 'run_id', run, 'since', whole(now))
  call('DEL', LEASES, ENTRIES)
end
local longest = math.max(lease_ms, tonumber(call('HGET', STATE, 'longest')) or 0)
call('HSET', STATE, 'longest', whole(longest))
local guard = tonumber(call('HGET', STATE, 'since')) + longest - now
if guard > 0 then return {-1, -1, guard} end

local leases, entries = {}, {}
local flat = call('HGETALL', LEASES)
for i = 1, #flat, 2 do
  local ends, who = string.match(flat[i + 1], '^(%d+):(.*)$')
  leases[tonumber(flat[i])] = {ends = tonumber(ends), owner = who}
end
flat = call('HGETALL', ENTRIES)
for i = 1, #flat, 2 do
  local n, w, til, round = string.match(flat[i + 1], '^(%d+):(%d+):(%d+):(%d+)$')
  if tonumber(til) > now then
    entries[flat[i]] = {wanted = tonumber(n), weight = tonumber(w), round = tonumber(round)}
  else
    call('HDEL', ENTRIES, flat[i])
  end
end

local unused, entry = {}, entries[owner]
for i = 8, #ARGV, 2 do
  local at, ms = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local lease = leases[at]
  unused[at] = true
  if entry and entry.round == last and lease and lease.owner == owner then
    local ends = ms > 0 and now + ms + 1 or now
    if ends < lease.ends then
      lease.ends = ends
      call('HSET', LEASES, at, whole(ends) .. ':' .. owner)
    end
  end
end
for at, lease in pairs(leases) do
  if lease.ends <= now then
    leases[at] = nil
    call('HDEL', LEASES, at)
  end
end

local round = call('HINCRBY', STATE, 'round', 1)
entries[owner] = {wanted = wanted, weight = weight, round = round}
call('HSET', ENTRIES, owner, table.concat({wanted, weight, whole(now + lease_ms), round}, ':'))

local share = share_of(owner, entries, count)
local used, spare, free, first = {}, {}, {}, nil
for at = 0, count - 1 do
  local lease = leases[at]
  local list = not lease and free or (lease.owner == owner and (unused[at] and spare or used))
  if list then list[#list + 1] = at end
end
for _, lease in pairs(leases) do
  if lease.owner ~= owner then first = math.min(first or lease.ends, lease.ends) end
end
local answer, ends = {round, -1, 0}, now + lease_ms
for _, list in ipairs({used, spare, free}) do
  for _, at in ipairs(list) do
    if share > 0 then
      share = share - 1
      call('HSET', LEASES, at, whole(ends) .. ':' .. owner)
      answer[#answer + 1], answer[#answer + 2] = at, lease_ms - 1
    end
  end
end
if share > 0 and first then answer[2] = first - now end
for _, key in ipairs({LEASES, ENTRIES}) do call('PEXPIRE', key, longest) end
return answer
