-- Back-fills: a hash for each, and the set of their names.
local BACKFILLS = BASE .. 'backfills'

local function backfill_key(name) return BASE .. 'backfill:' .. name end

-- A field is '' where the hash has none.
local function backfill_field(name, field)
  return call('HGET', backfill_key(name), field) or ''
end

-- Whether a run has the lease under this token. It has it until another takes it.
local function runs_backfill(name, token)
  return token ~= '' and backfill_field(name, 'token') == token
end

local function backfill_leased(name) return num(backfill_key(name), 'until_ms') > now end

local function keep_backfill(name, ms) call('HSET', backfill_key(name), 'until_ms', now + ms) end

local function end_lease(name)
  call('HDEL', backfill_key(name), 'token', 'owner', 'until_ms')
end
