-- Lists what is dequeued and not acknowledged, but for what some holders have.
-- KEYS: lease, active. ARGV: what a task's key begins with, then the holders to
-- leave out. Returns id, holder or '', end of the lease in Unix seconds or '', ...
local except = {}
for i = 2, #ARGV do
  except[ARGV[i]] = true
end
local out = {}
for _, id in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  local holder = redis.call('HGET', ARGV[1] .. id, 'otpq_holder') or ''
  if not except[holder] then
    out[#out + 1] = id
    out[#out + 1] = holder
    out[#out + 1] = redis.call('ZSCORE', KEYS[1], id) or ''
  end
end
return out
