-- Writes what became of a claimed attempt.
-- Of each: now in ms, token, attempt number, attempt line, new state, spent 0/1,
-- ambiguous 0/1, retention in ms, then field, value, ...
-- Answers 'ok' or {'refused' | 'gone', state}.
local function one(key, a, last)
  local now, token, number, line, to = unpack(ARGV, a + 1, a + 5)
  local r = call('HMGET', key, 'state', 'claim', 'taken', 'made')
  local state, owner, taken, not_after = r[1], r[2], r[3], deadline(r[4])
  if not state then
    return {'gone', ''}
  end
  local ours = state == 'sending' and owner == token
  if not ours then
    if state == to and call('HGET', key, 'a' .. number) == line then -- the reply to our own finish was lost
      return 'ok'
    end
    -- The claim was taken over. What the late result says is believed only when
    -- it is that the provider took the message.
    if to ~= 'accepted' then
      return {'refused', state}
    end
    call('HSET', key, 'a' .. number, line)
    if not leads(state, to) then
      return {'refused', state}
    end
    if tonumber(number) > tonumber(call('HGET', key, 'n') or '0') then -- Redis lost the claim
      call('HSET', key, 'n', number)
    end
  elseif not leads(state, to) then
    return {'refused', state}
  end

  if not ours or taken then
    -- The payload of a dead letter that comes to life goes. In the usual way there is
    -- nothing to delete: the claim has deleted the rest, and what it left itself says
    -- nothing once the state is another.
    call('HDEL', key, 'claim', 'claimed', 'taken', 'payload', 'reason', 'next')
  end
  local spent, lost = '0', '0'
  if number ~= '1' or not ours then
    r = call('HMGET', key, 'spent', 'ambiguous')
    spent, lost = r[1] or '0', r[2] or '0'
  end
  if ARGV[a + 6] == '1' then
    spent = string.format('%d', tonumber(spent) + 1)
  end
  if ARGV[a + 7] == '1' then
    lost = string.format('%d', tonumber(lost) + 1)
    call('HSET', key, 'ambiguous', lost)
  end
  call('HSET', key, 'state', to, 'updated', now, 'claim', '-', 'a' .. number, line, 'spent', spent, unpack(ARGV, a + 9, last))
  if (to == 'expired' or to == 'canceled') and lost ~= '0' then
    call('HSET', key, 'reason', 'maybe_sent')
  end
  if not ours or not kept(to, tonumber(not_after or '0') - tonumber(now), tonumber(ARGV[a + 8])) then
    expire(key, now, to, ARGV[a + 8], not_after)
  end
  return 'ok'
end
