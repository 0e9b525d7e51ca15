-- Credit: what each batcher may release, earned as time passes. A batcher has an account of each
-- limit, and one more for its back-fills. What is earned in a while is divided by max-min fairness
-- (water filling; Bertsekas and Gallager, Data Networks, 6.5.2): a full account takes nothing, and
-- the others share by weight, so that no part of the capacity is lost while one of them has need.
-- Floors come first, and back-fills last.
local CLASSES = { 'credit', 'backfill' }

local function account(class, n, name) return nth(class, n) .. ':' .. name end

-- Divide `total` over rooms, by weight. Adds to `given`; returns what is left.
local function water_fill(total, rooms, weights, given)
  while total > 1e-9 do
    local sum, filled = 0, false
    for i, room in ipairs(rooms) do if room > 0 then sum = sum + weights[i] end end
    if sum == 0 then return total end
    local level = total / sum
    for i, room in ipairs(rooms) do
      if room > 0 and room <= level * weights[i] then
        given[i], rooms[i], total, filled = given[i] + room, 0, total - room, true
      end
    end
    if not filled then
      for i, room in ipairs(rooms) do
        if room > 0 then given[i], rooms[i] = given[i] + level * weights[i], room - level * weights[i] end
      end
      return 0
    end
  end
  return total
end

-- Give each its floor, or as much of it as there is. Returns what is left.
local function fill_floors(total, rooms, floors, given)
  local wanted = 0
  for i, room in ipairs(rooms) do wanted = wanted + math.min(room, floors[i]) end
  local part = wanted > total and total / wanted or 1
  for i, room in ipairs(rooms) do
    local floor = part * math.min(room, floors[i])
    given[i], rooms[i] = given[i] + floor, room - floor
  end
  return math.max(0, total - wanted)
end

-- The accounts of a class of one limit: credit, room, weights and floors by batcher.
local function read_accounts(class, limit, names, total)
  local fields = {}
  for _, name in ipairs(names) do
    for _, field in ipairs({ account(class, limit.n, name), account(class .. '_full', limit.n, name),
      'weight:' .. name, class .. '_floor:' .. name }) do
      fields[#fields + 1] = field
    end
  end
  local values = call('HMGET', RES, unpack(fields))
  local a = { fields = fields, credits = {}, rooms = {}, weights = {}, floors = {}, given = {} }
  for i = 1, #names do
    local full = tonumber(values[4 * i - 2]) or 0
    a.credits[i] = math.min(full, tonumber(values[4 * i - 3]) or 0)
    a.rooms[i], a.given[i] = full - a.credits[i], 0
    a.weights[i] = tonumber(values[4 * i - 1]) or 1
    a.floors[i] = (tonumber(values[4 * i]) or 0) * total
  end
  return a
end

local function write_accounts(a)
  local pairs_ = {}
  for i, credit in ipairs(a.credits) do
    pairs_[2 * i - 1], pairs_[2 * i] = a.fields[4 * i - 3], text(credit + a.given[i])
  end
  call('HSET', RES, unpack(pairs_))
end

local function divide(limit, names, total)
  local urgent = read_accounts('credit', limit, names, total)
  local backfill = read_accounts('backfill', limit, names, total)
  local left = fill_floors(total, urgent.rooms, urgent.floors, urgent.given)
  left = fill_floors(left, backfill.rooms, backfill.floors, backfill.given)
  left = water_fill(left, urgent.rooms, urgent.weights, urgent.given)
  water_fill(left, backfill.rooms, backfill.weights, backfill.given)
  write_accounts(urgent)
  write_accounts(backfill)
end

-- Earn what has come since the last time, up to what accounts hold: two flush intervals, or the cost
-- of the operation at the head, so that a dear one can save up.
local function earn(class, costs, name, flush_ms)
  local names = {}
  for known in string.gmatch(call('HGET', RES, 'batchers') or name, '%S+') do
    names[#names + 1] = known
  end
  local since = call('HGET', RES, 'earned_ms')
  local elapsed = math.max(0, now - (since or now))
  for n, limit in ipairs(limits) do
    limit.per_flush = limit.capacity * flush_ms / limit.window
    local full = math.max(2 * limit.per_flush, costs[limit.dimension] or 0)
    if call('HSET', RES, account(class .. '_full', n, name), text(full)) == 1 then
      call('HSET', RES, account(class, n, name), text(limit.per_flush)) -- it is new
    end
    divide(limit, names, limit.capacity * elapsed / limit.window)
    limit.credit = num(RES, account(class, n, name))
  end
  call('HSET', RES, 'earned_ms', now)
end

local function spend(class, costs, name)
  for n, limit in ipairs(limits) do
    local left = limit.credit - (costs[limit.dimension] or 0)
    call('HSET', RES, account(class, n, name), text(left))
  end
end
