-- Operations that stay together and meet no others: the halves of a batch that failed. A group is a
-- block whose entries are the blocks of its operations, one each, in the order of the batch.

local function add_group(w, data)
  local group = open_block(data)
  call('ZADD', together_key(w), group.sequence, data)
  if walks('waiting', w) then
    barrier().note(PRIORITIES, '', 's', data, 1, group.n, group.cost, together_key(w))
  end
  count_waiting(w, 's', group.n, group.cost)
end

local function pack_group(singles)
  local cost, weight = 0, 0
  for _, single in ipairs(singles) do
    local block = open_block(single)
    cost, weight = cost + block.cost, weight + block.weight
  end
  local first = open_block(singles[1]).sequence
  return pack_block(first, #singles, cost, weight, table.concat(singles))
end

-- The blocks of a group's operations, in order.
local function open_group(group)
  local singles, at = {}, group.at
  for i = 1, group.n do
    local _, _, bytes = struct.unpack(BLOCK, group.data, at)
    singles[i] = string.sub(group.data, at, at + BLOCK_SIZE + bytes - 1)
    at = at + BLOCK_SIZE + bytes
  end
  return singles
end

-- The same entry, or the same block of one operation, which from now on is alone in its batches.
local function alone(data, at)
  at = (at or 0) + 6
  local flags = string.byte(data, at)
  if has_flag(flags, ALONE) then return data end
  return string.sub(data, 1, at - 1) .. string.char(flags + ALONE) .. string.sub(data, at + 1)
end
