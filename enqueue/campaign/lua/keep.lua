-- Keeps chunks of rows, unless another has begun to create the campaign.
-- KEYS: campaign, chunks. ARGV: token, keep in ms, then what each chunk is.
-- Returns 1, or 0 when another has.
if redis.call('HGET', KEYS[1], 'by') ~= ARGV[1] then
  return 0
end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[2])
end
return 1
