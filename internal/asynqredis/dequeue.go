package asynqredis

import (
	"context"
	_ "embed"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/dequeue.lua
var dequeueLua string

var dequeueScript = redis.NewScript(dequeueLua)

// dequeue takes a task in this process's name. asynq gets the error, if there is
// one, after a pause.
func (h *Hook) dequeue(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	h.turns.Store(queueOf(cmd), time.Now())
	err := h.take(ctx, cmd, next)
	if err == nil || errors.Is(err, redis.Nil) || strings.HasPrefix(err.Error(), "NOSCRIPT") {
		h.failures.Store(0)
		return err
	}
	select {
	case <-time.After(pause(int(h.failures.Add(1)))):
	case <-ctx.Done():
	}
	return err
}

// take runs our script in the place of asynq's.
func (h *Hook) take(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	theirs, ok := cmd.(*redis.Cmd)
	if !ok || h.Holder == "" {
		return next(ctx, cmd)
	}
	// name, script, 4, the four keys, the end of the lease, what a task's key begins with
	args := append(append([]any{}, theirs.Args()[:9]...), h.Holder)
	args[0], args[1] = "evalsha", dequeueScript.Hash()
	ours := redis.NewCmd(ctx, args...)
	err := next(ctx, ours)
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		args[0], args[1] = "eval", dequeueLua
		ours = redis.NewCmd(ctx, args...)
		err = next(ctx, ours)
	}
	theirs.SetVal(ours.Val())
	theirs.SetErr(err)
	return err
}

// LastTurn returns when a server in this process last asked Redis for a task of
// the queue; the zero time when none ever did.
func (h *Hook) LastTurn(queue string) time.Time {
	at, _ := h.turns.Load(queue)
	t, _ := at.(time.Time)
	return t
}

// queueOf is the queue that a dequeue is for: its first key is asynq:{queue}:pending.
func queueOf(cmd redis.Cmder) string {
	key, _ := cmd.Args()[3].(string)
	return strings.TrimSuffix(strings.TrimPrefix(key, "asynq:{"), "}:pending")
}
