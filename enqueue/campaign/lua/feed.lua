-- Notes that the rows taken last are in the queue, and takes the next. To repeat it
-- does no harm.
-- KEYS: campaign, counts, lease, messages in flight. ARGV: token, lease in ms, now in
-- ms, up to which place rows are in the queue, how many they are, from which place on
-- rows are taken, up to which, then the messages in the queue, then for each that is
-- taken: message, its row's place.
-- Returns the campaign's state, or false when the lease is another's. Rows are taken
-- only while it is running.
local call = redis.call
local lease = call('GET', KEYS[3])
if not lease or string.sub(lease, 1, #ARGV[1] + 1) ~= ARGV[1] .. '|' then
  return false
end
call('PEXPIRE', KEYS[3], ARGV[2])
local r = call('HMGET', KEYS[1], 'state', 'fed', 'reserved')
local fed, queued = tonumber(ARGV[4]), tonumber(ARGV[5])
if fed > tonumber(r[2]) then
  if queued > 0 then
    local held = call('HMGET', KEYS[4], unpack(ARGV, 8, 7 + queued))
    local set = {}
    for i = 1, queued do
      local v = held[i]
      if v and string.sub(v, -8) == ' waiting' then -- else it has come to its end already
        set[#set + 1] = ARGV[7 + i]
        set[#set + 1] = string.sub(v, 1, -8) .. 'queued'
      end
    end
    if #set > 0 then
      call('HSET', KEYS[4], unpack(set))
      call('HINCRBY', KEYS[2], 'waiting', -#set / 2)
      call('HINCRBY', KEYS[2], 'queued', #set / 2)
    end
  end
  call('HSET', KEYS[1], 'fed', ARGV[4])
end
local from, to = tonumber(ARGV[6]), tonumber(ARGV[7])
if r[1] == 'running' and to > from and from == tonumber(r[3]) then
  local set = {}
  for i = 8 + queued, #ARGV, 2 do
    set[#set + 1] = ARGV[i]
    set[#set + 1] = ARGV[i + 1] .. ' waiting'
  end
  if #set > 0 then
    call('HSET', KEYS[4], unpack(set))
    local keep = call('PTTL', KEYS[1])
    if keep > 0 then call('PEXPIRE', KEYS[4], keep) end -- it ends with the campaign
  end
  call('HSET', KEYS[1], 'reserved', ARGV[7], 'reserved_at', ARGV[3])
end
return r[1]
