package campaign

import (
	_ "embed"

	"github.com/redis/go-redis/v9"
)

// All scripts of a campaign work on its own keys, which are on one node. The names of
// its chunks and of their ends they make themselves.
var (
	//go:embed lua/begin.lua
	beginLua string
	//go:embed lua/add.lua
	addLua string
	//go:embed lua/keep.lua
	keepLua string
	//go:embed lua/created.lua
	createdLua string
	//go:embed lua/control.lua
	controlLua string
	//go:embed lua/lease.lua
	leaseLua string
	//go:embed lua/feed.lua
	feedLua string
	//go:embed lua/tally.lua
	tallyLua string
	//go:embed lua/hold.lua
	holdLua string
	//go:embed lua/retried.lua
	retriedLua string

	beginScript   = redis.NewScript(beginLua)
	addScript     = redis.NewScript(addLua)
	keepScript    = redis.NewScript(keepLua)
	createdScript = redis.NewScript(createdLua)
	controlScript = redis.NewScript(controlLua)
	leaseScript   = redis.NewScript(leaseLua)
	feedScript    = redis.NewScript(feedLua)
	tallyScript   = redis.NewScript(tallyLua)
	holdScript    = redis.NewScript(holdLua)
	retriedScript = redis.NewScript(retriedLua)
)
