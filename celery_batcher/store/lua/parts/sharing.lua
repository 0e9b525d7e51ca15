-- Sharing a resource with other batchers: start-time fair queueing (fairness.py) of the resource's
-- time. An operation takes the time in which its cost is earned, in the limit where that is longest
-- (dominant resource fairness; Ghodsi et al., NSDI 2011). A batcher that was refused room or credit is
-- in need of a batch: those that come after it in rank and virtual time leave it that much.
-- Ranks: 0 what a floor covers, 1 what is urgent, 2 back-fills. All times are in milliseconds.
local FLOORS = { 'floor:', 'backfill_floor:' }

-- An account of a class of a batcher.
local function party(class, name) return class == 1 and name or name .. '/backfill' end

local function time_of(costs)
  local longest = 0
  for _, limit in ipairs(limits) do
    local cost = costs[limit.dimension] or 0
    if cost > 0 and limit.provisioned > 0 then longest = math.max(longest, cost * limit.window / limit.provisioned) end
  end
  return longest
end

-- Where a class of this batcher stands: its rank for a head with these costs, its virtual time, and
-- what its floor has earned, which is kept up to two flush intervals' worth or what the head takes.
-- The floor covers a batch of that size, from one flush interval's worth on.
local function standing_of(class, name, costs, flush_ms)
  local me, time = party(class, name), time_of(costs)
  local s = call('HMGET', RES, FLOORS[class] .. name, 'earned:' .. me, 'earned_ms:' .. me,
    'tag:' .. me, nth('vtime', class), 'weight:' .. name, 'batchers')
  local part = tonumber(s[1]) or 0
  local enough = math.max(flush_ms * part, time)
  local earned = (tonumber(s[2]) or 0) + part * math.max(0, now - (tonumber(s[3]) or now))
  local standing = { me = me, class = class, weight = tonumber(s[6]) or 1,
    tag = math.max(tonumber(s[4]) or 0, tonumber(s[5]) or 0), others = {}, since = s[3],
    behind = math.huge,
    earned = math.min(earned, math.max(2 * flush_ms * part, time)), covered = 2 ^ 53 }
  standing.rank = part > 0 and standing.earned >= enough and 0 or class
  if part > 0 then standing.covered = now + math.ceil((enough - standing.earned) / part) end
  standing.enough = enough
  for known in string.gmatch(s[7] or '', '%S+') do
    if known ~= name then
      table.insert(standing.others, 'need:' .. party(1, known))
      table.insert(standing.others, 'need:' .. party(2, known))
    end
  end
  return standing
end

-- The costs of what other batchers need before this one, by dimension, and the most that a batch of any
-- of them needs; notes the virtual time of who of its class is furthest behind. A need is packed: rank, virtual time, when it lapses, when a floor
-- covers some of it, the virtual time that a batch takes, how many batches it could use at once, the
-- costs of a batch, and those of what the floor covers then.
local NEED = 6

-- How many batches of a need come before what has a later rank, or the same one and a later time: one
-- that a floor covers, all that is urgent before back-fills, and else what is due until that time.
local function batches_before(standing, rank, tag, step, most)
  if rank == 0 then return 1 elseif rank < standing.rank then return most end
  return step > 0 and math.min(most, math.ceil((standing.tag - tag) / step)) or 1
end

local function need_before(standing)
  local sum, greatest, dimensions = {}, {}, limits[#limits].dimension
  if #standing.others == 0 then return sum, greatest end
  for i, packed in ipairs(call('HMGET', RES, unpack(standing.others))) do
    local need = open_costs(packed or '')
    local rank, tag, lapses, covered, step, most = unpack(need)
    if rank and lapses > now and i % 2 == standing.class % 2 then
      standing.behind = math.min(standing.behind, tag)
    end
    local first = NEED
    if rank and rank > 0 and covered <= now then rank, first = 0, NEED + dimensions end
    if rank and lapses > now then
      for d = 1, dimensions do greatest[d] = math.max(greatest[d] or 0, need[first + d]) end
    end
    if rank and lapses > now
      and (rank < standing.rank or rank == standing.rank and rank > 0 and tag < standing.tag) then
      local batches = batches_before(standing, rank, tag, step, most)
      for d = 1, dimensions do sum[d] = (sum[d] or 0) + batches * need[first + d] end
    end
  end
  return sum, greatest
end

-- A floor earns from the first time on that its class has need.
local function begin_to_earn(standing)
  if not standing.since then call('HSET', RES, 'earned_ms:' .. standing.me, now) end
end

-- What may be had of a limit in so much of its time; rounding must not cut off an operation.
local function worth(limit, time) return time * limit.provisioned / limit.window + 1e-6 end

-- The most that a batch may cost in a limit: of what a floor covers no more than it has earned.
local function most_of(standing, limit)
  return standing.rank > 0 and math.huge or worth(limit, standing.earned)
end

-- It needs a batch: of operations like the one at its head, as much as a flush earns or a batch holds.
-- Far behind others it is due several of them, up to what a flush earns.
local function note_need(standing, costs, o, flush_ms)
  if #standing.others == 0 then return end
  local mean = math.max(1, o.cost / math.max(1, o.n))
  local most = math.min(limits[1].per_flush, most_of(standing, limits[1]))
  local waiting = standing.class == 1 and o.n - o.n2 or o.n2
  local count = math.max(1, math.min(waiting, o.max_batch_size, most / mean))
  local lapses, dimensions = now + math.max(500, 3 * flush_ms), limits[#limits].dimension
  local need = { standing.rank, standing.tag, lapses, standing.covered, 0, 1 }
  for d = 1, dimensions do
    local all = math.max(costs[d] or 0, math.floor(count * (d == 1 and mean or costs[d] or 0)))
    need[NEED + d], need[NEED + dimensions + d] = all, all
  end
  local time = time_of({ unpack(need, NEED + 1, NEED + dimensions) })
  if time > 0 then
    need[5] = time / standing.weight
    need[6] = math.max(1, math.min(math.floor(flush_ms / time), math.ceil(waiting / count)))
  end
  for _, limit in ipairs(limits) do
    local at, head = NEED + dimensions + limit.dimension, costs[limit.dimension] or 0
    need[at] = math.min(need[at], math.max(head, math.floor(worth(limit, standing.enough))))
  end
  call('HSET', RES, 'need:' .. standing.me, pack_costs(need))
end

local function forget_need(class, name)
  call('HDEL', RES, 'need:' .. party(class, name))
end

-- A batch was released. What a floor covers counts as all else does in the virtual time of who has it, so
-- that floors are no gift on top of a share; the resource's moves up to that of who is furthest behind,
-- so that nobody in need loses a claim.
local function spend(standing, costs)
  local time = time_of(costs)
  local covered = standing.rank == 0 and math.min(standing.earned, time) or 0
  local fields = { 'earned:' .. standing.me, text(standing.earned - covered),
    'earned_ms:' .. standing.me, now,
    'tag:' .. standing.me, text(standing.tag + time / standing.weight) }
  local function set(name, value) fields[#fields + 1], fields[#fields + 2] = name, text(value) end
  if standing.rank > 0 then
    set(nth('vtime', standing.class), math.min(standing.tag, standing.behind))
  end
  for n, limit in ipairs(limits) do
    local cost = costs[limit.dimension] or 0
    local refunded = math.min(cost, limit.refund)
    set(nth('credit', n), limit.earned - (cost - refunded))
    if refunded > 0 then set(nth('refund', n), limit.refund - refunded) end
  end
  call('HSET', RES, unpack(fields))
  if #standing.others > 0 then call('HDEL', RES, 'need:' .. standing.me) end
end
