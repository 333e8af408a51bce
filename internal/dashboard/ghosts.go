package dashboard

import (
	"context"
	_ "embed"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/list.lua
var listLua string

//go:embed lua/sorted.lua
var sortedLua string

//go:embed lua/memory.lua
var memoryLua string

var (
	listScript   = redis.NewScript(listLua)
	sortedScript = redis.NewScript(sortedLua)
	memoryScript = redis.NewScript(memoryLua)
)

const (
	// memorySample is how many tasks of each list are measured for the size of a
	// queue. asynq measures 20, 120 a queue; ours all have about the same size.
	memorySample = 5
	// memoryFor is how long a queue's size is not asked for again: each page of
	// Asynqmon asks for it every few seconds.
	memoryFor = 15 * time.Second
	// maxSizes bounds how many sizes are remembered.
	maxSizes = 1024
)

// ghosts is a hook on the clients that asynq's Inspector works with. It has the
// Inspector leave out ghosts: ids in a list whose task is gone, one of which
// otherwise makes every page of Asynqmon fail or shows as an empty line. And it
// bounds what the size of a queue costs Redis.
//
// The scripts are told by their keys, as internal/asynqredis does, and replaced by
// ours, which take and give the same.
type ghosts struct {
	now   func() time.Time
	mu    sync.Mutex
	sizes map[string]size // by the key of the queue's pending list
}

type size struct {
	bytes int64
	at    time.Time
}

var _ redis.Hook = (*ghosts)(nil)

// DialHook implements [redis.Hook].
func (g *ghosts) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook implements [redis.Hook]. The Inspector has no pipelines.
func (g *ghosts) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook implements [redis.Hook].
func (g *ghosts) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		script, queue := ours(cmd)
		if script == nil {
			return next(ctx, cmd)
		}
		reply, _ := cmd.(*redis.Cmd)
		if script == memoryScript && reply != nil {
			if bytes, ok := g.known(queue); ok {
				reply.SetVal(bytes)
				return nil
			}
		}
		args := cmd.Args()
		if cmd.Name() == "eval" {
			args[1] = scriptText[script]
		} else {
			args[1] = script.Hash()
		}
		err := next(ctx, cmd)
		if script == memoryScript && reply != nil && err == nil {
			if bytes, ok := reply.Val().(int64); ok {
				g.note(queue, bytes)
			}
		}
		return err
	}
}

// scriptText is what [redis.Script] does not give back.
var scriptText = map[*redis.Script]string{listScript: listLua, sortedScript: sortedLua, memoryScript: memoryLua}

// ours is the script that takes the place of the command's; nil for a command
// that stays as it is. queue is the prefix of the keys of the queue it is about.
func ours(cmd redis.Cmder) (script *redis.Script, queue string) {
	if name := cmd.Name(); name != "evalsha" && name != "eval" {
		return nil, ""
	}
	args := cmd.Args()
	keys, rest, ok := split(args)
	switch {
	case !ok:
	case len(keys) == 1 && len(rest) == 3:
		// A key of a list, where to begin and to end, and the prefix of tasks.
		tasks, _ := rest[2].(string)
		queue, ok := strings.CutSuffix(tasks, "t:")
		list, inQueue := strings.CutPrefix(keys[0], queue)
		if !ok || !inQueue {
			break
		}
		switch {
		case list == "pending", list == "active":
			return listScript, queue
		case list == "scheduled", list == "retry", list == "archived", list == "completed", strings.HasPrefix(list, "g:"):
			return sortedScript, queue
		}
	case len(keys) == 7 && len(rest) == 4:
		queue, ok := strings.CutSuffix(keys[0], "active")
		if ok && keys[1] == queue+"pending" && keys[6] == queue+"groups" {
			args[3+len(keys)+1] = memorySample
			return memoryScript, queue
		}
	}
	return nil, ""
}

// split takes the keys out of the arguments of a script's call.
func split(args []any) (keys []string, rest []any, ok bool) {
	if len(args) < 3 {
		return nil, nil, false
	}
	n, ok := args[2].(int)
	if !ok || n < 1 || len(args) < 3+n {
		return nil, nil, false
	}
	for _, a := range args[3 : 3+n] {
		key, ok := a.(string)
		if !ok {
			return nil, nil, false
		}
		keys = append(keys, key)
	}
	return keys, args[3+n:], true
}

func (g *ghosts) known(queue string) (int64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.sizes[queue]
	return s.bytes, ok && g.now().Sub(s.at) < memoryFor
}

func (g *ghosts) note(queue string, bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sizes == nil || len(g.sizes) >= maxSizes {
		g.sizes = map[string]size{}
	}
	g.sizes[queue] = size{bytes, g.now()}
}
