-- Writes what became of a claimed attempt.
-- Of each: now in ms, token, attempt number, attempt line, new state, spent 0/1,
-- ambiguous 0/1, retention in ms, then field, value, ...
-- Answers {'ok' | 'refused' | 'gone', state}.
local function one(key, a)
  local token, attempt, line, to = a[2], 'a' .. a[3], a[4], a[5]
  local r = redis.call('HMGET', key, 'state', 'claim', attempt, 'n', 'ambiguous', 'not_after', 'spent', 'taken')
  local state, owner, written = r[1], r[2], r[3]
  local ours = state == 'sending' and owner == token
  if not state then
    return {'gone', ''}
  end
  if not ours then
    if state == to and written == line then -- the reply to our own finish was lost
      return {'ok', state}
    end
    -- The claim was taken over. What the late result says is believed only when
    -- it is that the provider took the message.
    if to ~= 'accepted' then
      return {'refused', state}
    end
    redis.call('HSET', key, attempt, line)
  end
  if not before[state .. ' ' .. to] then
    return {'refused', state}
  end

  local ambiguous = tonumber(r[5] or '0')
  local function also(field, value)
    a[#a + 1] = field
    a[#a + 1] = value
  end
  also(attempt, line)
  if tonumber(a[3]) > tonumber(r[4] or '0') then also('n', a[3]) end -- Redis lost the claim
  if a[6] == '1' then also('spent', string.format('%d', tonumber(r[7] or '0') + 1)) end
  if a[7] == '1' then
    ambiguous = ambiguous + 1
    also('ambiguous', string.format('%d', ambiguous))
  end
  local usual = ours and not r[8]
  if usual then
    -- Nothing to delete: the claim has deleted the rest, and what it left itself
    -- says nothing once the state is another.
    also('claim', '-')
    apply(key, a[1], to, ambiguous, a, 9, #a)
  else
    -- The payload of a dead letter that comes to life goes; the new one's comes after.
    apply(key, a[1], to, ambiguous, a, 9, #a, {'claim', 'claimed', 'taken', 'payload'})
  end
  if not (usual and kept(to, tonumber(r[6] or '0') - tonumber(a[1]), tonumber(a[8]))) then
    expire(key, a[1], to, a[8], r[6])
  end
  return {'ok', to}
end
