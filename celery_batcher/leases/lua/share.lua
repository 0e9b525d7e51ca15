-- The owner's share of the partitions: `water_fill` of fairness.py, without floors.
local function share_of(owner, entries, count)
  local owners, shares, rising, rest, sum = {}, {}, {}, count, 0
  for who, entry in pairs(entries) do
    owners[#owners + 1] = who
    entry.wanted = math.min(entry.wanted, count)
    sum = sum + entry.wanted
  end
  if sum <= count then return entries[owner].wanted end
  table.sort(owners)
  for _, who in ipairs(owners) do rising[who] = true end
  local width, full
  repeat
    width, full = 0, {}
    for who in pairs(rising) do width = width + entries[who].weight end
    for who in pairs(rising) do
      local entry = entries[who]
      if entry.wanted * width < rest * entry.weight then full[#full + 1] = who end
    end
    for _, who in ipairs(full) do
      shares[who], rising[who] = entries[who].wanted, nil
      rest = rest - shares[who]
    end
  until #full == 0
  if shares[owner] then return shares[owner] end
  local left, fractions = rest, {}
  for at, who in ipairs(owners) do
    if rising[who] then
      local exact = rest * entries[who].weight
      shares[who] = math.floor(exact / width)
      left = left - shares[who]
      fractions[#fractions + 1] = {who = who, part = exact % width, at = at}
    end
  end
  table.sort(fractions, function(a, b)
    return a.part > b.part or (a.part == b.part and a.at < b.at)
  end)
  for i = 1, left do shares[fractions[i].who] = shares[fractions[i].who] + 1 end
  return shares[owner]
end

