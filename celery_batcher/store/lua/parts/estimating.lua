-- What operations of a watcher cost, learned from what they were charged: by cost key, a mean that
-- forgets, the count of samples and the costs by dimension.
local SAMPLES, MOST_KEYS = 20, 10000 -- the newest sample counts at least one part in 20

local function learn(w, samples)
  local key = BASE .. 'costs:' .. w
  for _, sample in ipairs(samples) do
    local known = open_costs(call('HGET', key, sample[1]) or '')
    if #known > 0 or call('HLEN', key) < MOST_KEYS then
      if #known ~= #sample then known = {} end -- costs have other dimensions now
      local means = { math.min((known[1] or 0) + 1, SAMPLES) }
      for d = 2, #sample do
        local mean = known[d] or 0
        means[d] = mean + (sample[d] - mean) / means[1]
      end
      call('HSET', key, sample[1], pack_costs(means))
    end
  end
end
