package asynqredis

import (
	"context"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// dueLooks keeps asynq from looking for tasks that fell due where there can be
// none. Due times are whole seconds, so one look just after each of them finds all;
// asynq looks at fixed intervals, and would have to do so many times a second to be
// as quick.
type dueLooks struct {
	mu   sync.Mutex
	last map[string]int64 // by key of the set: the second after which nothing was due
}

// forward looks once a second and set, and as long as something is found.
func (h *Hook) forward(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	// name, script, 2, set, pending, now in Unix seconds, …
	args := cmd.Args()
	theirs, ok := cmd.(*redis.Cmd)
	if !ok || len(h.lanes) == 0 || len(args) < 6 {
		return next(ctx, cmd)
	}
	set, _ := args[3].(string)
	second, known := args[5].(int64) // asynq's, which is what it looks for
	if !known {
		return next(ctx, cmd)
	}
	h.due.mu.Lock()
	looked := h.due.last[set] == second
	h.due.mu.Unlock()
	if looked {
		theirs.SetVal(int64(0))
		return nil
	}
	err := next(ctx, cmd)
	if moved, _ := theirs.Int(); err == nil && moved == 0 {
		h.due.mu.Lock()
		defer h.due.mu.Unlock()
		if h.due.last == nil {
			h.due.last = map[string]int64{}
		}
		h.due.last[set] = second
	}
	return err
}

// isForward recognises asynq's forward script by its two keys.
func isForward(first, second string) bool {
	return (strings.HasSuffix(first, "}:scheduled") || strings.HasSuffix(first, "}:retry")) && strings.HasSuffix(second, "}:pending")
}
