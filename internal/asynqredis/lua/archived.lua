-- Lists a page of the archive, the oldest first.
-- KEYS: archived. ARGV: what a task's key begins with, how many to pass over, how
-- many to return. Returns id, when it was archived in Unix seconds, message or '', ...
local out = {}
local first = tonumber(ARGV[2])
local page = redis.call('ZRANGE', KEYS[1], first, first + ARGV[3] - 1, 'WITHSCORES')
for i = 1, #page, 2 do
  out[#out + 1] = page[i]
  out[#out + 1] = page[i + 1]
  out[#out + 1] = redis.call('HGET', ARGV[1] .. page[i], 'msg') or ''
end
return out
