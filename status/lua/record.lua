-- The deadline of a record in ms, of its field made; nil when it has none.
local function deadline(made)
  return string.match(made or '', '^[^|]*|[^|]*|[^|]*|(%d+)')
end

-- Notes that an attempt is begun: from here on a request may leave.
local function begin(key, token, now, number)
  redis.call('HSET', key, 'state', 'sending', 'updated', now, 'claim', token, 'claimed', now, 'n', number, 'a' .. number, now)
end
