-- What keeps a batch from starting whatever its cost: a pause of the batcher, a closed resource.
-- Returns the reason and the milliseconds it will last (-1: until someone resumes).
local function gate()
  local paused = num(META, 'paused_until')
  if paused == -1 then return 'paused', -1 end
  if paused > now then return 'paused', paused - now end
  local closed = num(RES, 'closed_until')
  if closed > now then return 'closed', closed - now end
end
