-- Takes the right to make the next attempt.
-- Of each: now in ms, token, abandoned after in ms, retention in ms, then the seed, if
-- there is to be a record in any case: its deadline in ms, then field, value, ...
-- Answers {result, attempt, spent, ambiguous, detail}; for a claim, the detail is when
-- the message fell due, in ms, if it had to wait until then. 'claimed' alone is the
-- first attempt at a message that had not to wait, as most are.
local function one(key, a, last)
  local now, token = ARGV[a + 1], ARGV[a + 2]
  local first = call('HMGET', key, 'state', 'next')
  local state, due = first[1], first[2] or ''
  if not state then
    if a + 5 > last then
      return {'gone', 0, 0, 0, ''}
    end
    state = 'queued' -- as every seed is
    call('HSET', key, unpack(ARGV, a + 6, last))
    -- Once: a claim changes nothing of how long a record is kept.
    expire(key, now, 'sending', ARGV[a + 4], ARGV[a + 5])
  end
  if state == 'queued' then -- nothing has happened to it yet
    if first[2] then
      call('HDEL', key, 'next')
    end
    begin(key, token, now, '1')
    if due == '' then
      return 'claimed'
    end
    return {'claimed', 1, 0, 0, due}
  end

  local r = call('HMGET', key, 'claim', 'claimed', 'taken', 'n', 'spent', 'ambiguous', 'reason')
  local owner, claimed, taken = r[1], tonumber(r[2] or '0'), r[3]
  local n, spent, ambiguous = tonumber(r[4] or '0'), tonumber(r[5] or '0'), tonumber(r[6] or '0')
  if state == 'sending' then
    if owner == token then -- the reply to our own claim was lost
      if not taken and claimed > 0 then
        return {'claimed', n, spent, ambiguous, ''}
      end
      -- It took over what another had begun and may have sent, or it was released.
      return {'abandoned', n, spent, ambiguous, call('HGET', key, 'a' .. n)}
    end
    local busy_until = claimed + ARGV[a + 3]
    if tonumber(now) < busy_until then
      return {'busy', n, spent, ambiguous, tostring(busy_until)}
    end
    call('HSET', key, 'claim', token, 'claimed', now, 'taken', '1')
    return {'abandoned', n, spent, ambiguous, call('HGET', key, 'a' .. n)}
  end
  if not leads(state, 'sending') then
    return {'over', n, spent, ambiguous, state}
  end

  n = n + 1
  if ambiguous > 0 then
    call('HSET', key, 'duplicate', '1')
  end
  local number = string.format('%d', n) -- a number would go through a slow printf
  begin(key, token, now, number)
  if r[7] or first[2] or n > 100 then
    -- The first attempts of hundreds tell nothing that the last do not.
    call('HDEL', key, 'reason', 'next', 'a' .. (n - 100))
  end
  return {'claimed', n, spent, ambiguous, due}
end
