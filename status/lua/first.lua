-- Put before the script that takes tasks from their queue, which calls it for a task
-- that comes alone: claims the first attempt at a message that is to be sent at once
-- and that nothing has happened to yet. All other claims are claim.lua's.
-- The id of a task, now in ms, and of all tasks: token, what a record's key begins with.
-- Answers '1' when the attempt is claimed, or ''.
local function ride(id, now, told)
  local key = told[2] .. id
  -- What is no record, or another node's, is none of ours.
  local r = redis.pcall('HMGET', key, 'state', 'next', 'made')
  if r.err or r[1] ~= 'queued' or r[2] or tonumber(deadline(r[3]) or 0) <= tonumber(now) then
    return ''
  end
  begin(key, told[1], now, '1')
  return '1'
end
