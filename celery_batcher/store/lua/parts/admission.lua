-- Messages leave the books: they arrived, or they were never published. The counters change once,
-- in `close_books`.
local RECORD = '^(%d+):(%d+):(%d+):(%d+):(.*)$' -- operations, cost, ms, stamp of the audit, watcher
local books = { n = 0, cost = 0, messages = {}, count = 0 }

-- Returns the cost that was admitted.
local function discharge(id)
  local record = call('HGET', ADMITTED, id)
  if not record then return 0 end
  local n, cost, _, stamp, w = string.match(record, RECORD)
  call('HDEL', ADMITTED, id)
  books.n, books.cost, books.count = books.n + n, books.cost + cost, books.count + 1
  books.messages[w] = (books.messages[w] or 0) + 1
  if walks('admitted') and stamp == walk.pass then barrier().sum_up_admitted(w, -1, -n, -cost) end
  return tonumber(cost)
end

local function close_books()
  add(META, 'admitted', -books.n)
  add(META, 'admitted_cost', -books.cost)
  for w, messages in pairs(books.messages) do add(watcher_key(w), 'admitted', -messages) end
  return books.count
end
