-- Notes that an attempt is begun: from here on a request may leave.
local function begin(key, token, now, number)
  redis.call('HSET', key, 'state', 'sending', 'updated', now, 'claim', token, 'claimed', now, 'n', number, 'a' .. number, now)
end
