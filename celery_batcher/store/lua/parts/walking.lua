-- The audit's walk through what is too much for one script: delayed operations, the books, and what
-- waits. Each step goes on from the cursor (walk.lua) until its room is used.
local LEFT = BASE .. 'left' -- list of watchers that the walk has not come to
local PAGE = 32
local room = { entries = tonumber(ARGV[5]), bytes = tonumber(ARGV[6]) }

local gathered = {}
local count = barrier()
function count.sum(name, n) gathered[name] = (gathered[name] or 0) + n end

local function add_gathered()
  for name, n in pairs(gathered) do add(SUMS, name, n) end
  gathered = {}
end

local function has_room() return room.entries > 0 and room.bytes > 0 end

-- Read a list or sorted set from the cursor on. Returns whether its end was reached.
local function visit(command, key, see)
  local size = 2 -- one more than most keys have: that is their end
  while has_room() do
    local most, bytes = math.min(size, math.ceil(room.entries)), 0
    local entries = call(command, key, walk.at, walk.at + most - 1)
    for i, entry in ipairs(entries) do
      see(entry, walk.at + i - 1)
      bytes = bytes + #entry
    end
    walk.at = walk.at + #entries
    room.entries, room.bytes = room.entries - #entries, room.bytes - bytes
    if #entries < most then return true end
    size = math.max(1, math.min(2 * size, PAGE, math.floor(room.bytes / (bytes / #entries))))
  end
end

local function begin(part)
  walk = { part = part, pass = walk.pass, at = 0 }
  call('DEL', SUMS)
end

-- Sums as read, and then by watcher.
local function take_sums()
  add_gathered()
  local flat, sums = call('HGETALL', SUMS), {}
  for i = 1, #flat, 2 do sums[flat[i]] = flat[i + 1] end
  return sums
end

local function compare_by_watcher(fields, prefix, field)
  local sums = take_sums()
  local watchers = call('SMEMBERS', WATCHERS)
  compare_fields('', fields, sums)
  for _, w in ipairs(watchers) do
    compare_fields(w, { field }, { [field] = sums[prefix .. w] })
  end
  room.entries = room.entries - #watchers / 4
end

local function walk_delayed()
  local done = visit('ZRANGE', LATER, function(member)
    local size = struct.unpack('>I2', member)
    local block = open_block(string.sub(member, 3 + size))
    count.sum_up_delayed(string.sub(member, 3, 2 + size), block.n, block.cost)
  end)
  if not done then return end
  compare_by_watcher({ 'delayed', 'delayed_cost' }, 'd:', 'delayed')
  begin('admitted')
end

local function walk_admitted()
  local scan = call('HSCAN', ADMITTED, walk.key or '0', 'COUNT', math.ceil(room.entries))
  local stamped, seen = {}, {}
  for i = 1, #scan[2], 2 do
    local id, n, cost, ms, stamp, w = scan[2][i], string.match(scan[2][i + 1], RECORD)
    if stamp ~= walk.pass and not seen[id] then
      seen[id], stamped[#stamped + 1] = true, id
      stamped[#stamped + 1] = table.concat({ n, cost, ms, walk.pass, w }, ':')
      count.sum_up_admitted(w, 1, n, cost)
    end
  end
  for first = 1, #stamped, 1000 do
    call('HSET', ADMITTED, unpack(stamped, first, math.min(first + 999, #stamped)))
  end
  walk.key, room.entries = scan[1], room.entries - #scan[2] / 2 - 1
  if scan[1] ~= '0' then return end
  compare_by_watcher({ 'admitted', 'admitted_cost' }, 'm:', 'admitted')
  begin('waiting')
  call('DEL', LEFT)
  for _, w in ipairs(call('SMEMBERS', WATCHERS)) do call('RPUSH', LEFT, w) end
end
