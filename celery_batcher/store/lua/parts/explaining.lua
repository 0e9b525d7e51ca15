-- What bears upon a watcher's next operation, piece by piece.
local w, flush_ms, name, class = ARGV[3], tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[8])
local key = ARGV[10]
local costs = ARGV[7] ~= '' and open_costs(ARGV[7])
local limited = ARGV[9] == '1' and call('HEXISTS', RES, 'capacity') == 1
local o = read_watcher(w, tonumber(ARGV[4]))
local ready = first_ready(w, o)
local head = ready or first_aside(w, o)

-- The entry next in turn.
local function entry_of()
  if not head then return '' end
  local block = head.together or head.block
  local at = block.at + (head.together and BLOCK_SIZE or 0)
  local entry = read_entry(block.data, at)
  if not costs then
    costs, key = head.costs, head.key
    class = not head.together and head.prio == BACKFILL and 2 or 1
  end
  return string.sub(block.data, at, at + entry.bytes - 1)
end

-- Milliseconds until a delayed operation of the watcher waits again, if it is among the next; else
-- -1. O(100 elements or 256 KiB)
local function due()
  local rank, bytes = 0, 0
  while rank < 100 and bytes < 262144 do
    local next_ = call('ZRANGE', LATER, rank, rank, 'WITHSCORES')
    if not next_[1] then return -1 end
    local size = struct.unpack('>I2', next_[1])
    if string.sub(next_[1], 3, 2 + size) == w then return math.max(0, next_[2] - now) end
    rank, bytes = rank + 1, bytes + #next_[1]
  end
  return -1
end

local function last_due()
  local last = call('ZREVRANGE', LATER, 0, 0, 'WITHSCORES')[2]
  return last and math.max(0, last - now) or 0
end

-- What may be released of a limit now, as a release would find it.
local function credit_of(limit, cost)
  local since, per_flush = call('HGET', RES, 'credit_ms'), limit.capacity * flush_ms / limit.window
  local credit = since and num(RES, nth('credit', limit.n))
    + limit.capacity * (now - since) / limit.window or per_flush
  local earned = math.max(0, math.min(credit, math.max(2 * per_flush, cost)))
  return earned + num(RES, nth('refund', limit.n))
end

local function limit_row(limit)
  local cost, started, unclaimed = costs[limit.dimension] or 0, held(limit)
  local lacking = cost - free(limit)
  local wait = cost > limit.capacity and -1 or lacking > 0 and wait_for(limit, lacking) or 0
  local row = {}
  for i, number in ipairs({ limit.dimension, limit.provisioned, limit.window, limit.capacity,
    started, unclaimed, num(RES, nth('debt', limit.n)), credit_of(limit, cost), wait }) do
    row[i] = text(number)
  end
  return row
end

local function batcher_row(known, standing)
  local needs = { 'need:' .. party(1, known), 'need:' .. party(2, known) }
  local in_need, unclaimed, first = 0, {}, {}
  for _, need in ipairs(needs) do
    local until_then = open_costs(call('HGET', RES, need) or '')[3]
    if until_then and until_then > now then in_need = 1 end
  end
  local before = known == name and {}
    or need_before({ others = needs, class = standing.class, rank = standing.rank, tag = standing.tag,
      behind = math.huge })
  local base = string.sub(BASE, 1, -#name - 2) .. known .. ':'
  for d = 1, dimensions() do
    unclaimed[d], first[d] = num(RES, nth('open', d) .. ':' .. base), before[d] or 0
  end
  return { known, num(RES, 'weight:' .. known), in_need, pack_costs(unclaimed), pack_costs(first) }
end
