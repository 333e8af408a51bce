-- Notes which campaign retries another, once.
-- KEYS: campaign. ARGV: the other's id. Returns the id of the one that does.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return ''
end
redis.call('HSETNX', KEYS[1], 'retried_as', ARGV[1])
return redis.call('HGET', KEYS[1], 'retried_as')
