-- Notes that the rows taken last are in the queue, and takes the next. To repeat it
-- does no harm.
-- KEYS: campaign, counts, lease, messages in flight. ARGV: token, lease in ms, now in
-- ms, up to which place rows are in the queue, from which place on rows are taken, up to
-- which, then for each that is taken: message, its row's place.
-- Returns the campaign's state, or false when the lease is another's. Rows are taken
-- only while it is running.
--
-- What is taken is in flight with its place alone: that it waits, or is queued, is told by
-- whether that place is noted yet, until a look at it shows more. So it is written once.
-- How many of those taken still wait is in the campaign's field 'taken'.
local call = redis.call
local lease = call('GET', KEYS[3])
if not lease or string.sub(lease, 1, #ARGV[1] + 1) ~= ARGV[1] .. '|' then
  return false
end
call('PEXPIRE', KEYS[3], ARGV[2])
local r = call('HMGET', KEYS[1], 'state', 'fed', 'reserved', 'taken')
if tonumber(ARGV[4]) > tonumber(r[2]) then
  local queued = tonumber(r[4] or '0')
  if queued > 0 then
    call('HINCRBY', KEYS[2], 'waiting', -queued)
    call('HINCRBY', KEYS[2], 'queued', queued)
  end
  call('HSET', KEYS[1], 'fed', ARGV[4], 'taken', '0')
end
local from, to = tonumber(ARGV[5]), tonumber(ARGV[6])
if r[1] == 'running' and to > from and from == tonumber(r[3]) then
  if #ARGV > 6 then
    call('HSET', KEYS[4], unpack(ARGV, 7))
    local keep = call('PTTL', KEYS[1])
    if keep > 0 then call('PEXPIRE', KEYS[4], keep) end -- it ends with the campaign
  end
  call('HSET', KEYS[1], 'reserved', ARGV[6], 'reserved_at', ARGV[3], 'taken', string.format('%d', (#ARGV - 6) / 2))
end
return r[1]
