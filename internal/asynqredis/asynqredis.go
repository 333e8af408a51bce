// Package asynqredis mends what asynq v0.26 does with Redis, from underneath: a
// go-redis hook on the client that an asynq server is given. It is no fork and
// knows nothing of otpq's messages; it recognises asynq's scripts by their keys,
// and its test holds that to the pinned version.
package asynqredis

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Hook mends three things, and speeds some up.
//
// An acknowledgement (done, complete, retry, archive, requeue) that meets an error
// is tried again until it lands or the task's lease ends. asynq's own retry has run
// with a canceled context since v0.25, so one transient error there has the task
// run a second time, a minute later.
//
// A dequeue that meets an error is followed by a pause. asynq comes back at once,
// thousands of times a second where Redis answers with an error, as it does when
// its memory is full.
//
// A dequeue says who took the task, so that what a dead process held can be told
// from what a living one works on: see [ListHeld].
//
// And it makes asynq fast. A dequeue takes as many tasks in one round trip as there
// are slots for, and waits at an empty queue until somebody adds one, instead of
// coming back to look. Tasks that end at the same time are acknowledged together.
// What falls due is looked for once a second, just after the second, in one round trip
// for all queues; on a cluster, in one for each. A [Rider] may do something in Redis
// where a task is taken. This is for the queues that [Hook.Serve] names, and those that
// share slots, see [Slots].
//
// It is safe for concurrent use; several servers may share the client it is on.
type Hook struct {
	// Holder names this process in the tasks that it takes.
	Holder string
	// Client is the one that the hook is on, for what the hook asks by itself.
	Client redis.UniversalClient

	// failures counts the dequeues that have failed in a row, all lanes together.
	failures atomic.Int64
	// acking has the ids of the tasks whose acknowledgement is under way.
	acking sync.Map
	// turns has, by queue, when it was last asked for a task.
	turns sync.Map

	lanes     lanes
	holds     sync.WaitGroup
	beginOnce sync.Once
	began     time.Time // when the first queue was served
	dueOnce   sync.Once
	stopOnce  sync.Once
	stopping  chan struct{} // nil before the first queue is served
}

var _ redis.Hook = (*Hook)(nil)

// kind is what a command means to asynq.
type kind int

const (
	other kind = iota
	dequeue
	acknowledge
	forward
)

// recognise tells the scripts apart by where the keys of the active list and of
// the leases stand: third and fourth in a dequeue, first or second, and next to
// each other, in all that ends an execution.
func recognise(cmd redis.Cmder) kind {
	name := cmd.Name()
	if name != "evalsha" && name != "eval" {
		return other
	}
	args := cmd.Args()
	key := func(n int) string { // the n-th key, from 1; the first stands after name, script and count
		if len(args) < n+3 {
			return ""
		}
		s, _ := args[n+2].(string)
		return s
	}
	isAt := func(n int) bool {
		return strings.HasPrefix(key(n), "asynq:{") && strings.HasSuffix(key(n), ":active") && strings.HasSuffix(key(n+1), ":lease")
	}
	switch {
	case isAt(1), isAt(2):
		return acknowledge
	case isAt(3) && strings.HasSuffix(key(1), ":pending"):
		return dequeue
	case isForward(args, key(1), key(2)):
		return forward
	}
	return other
}

// DialHook implements [redis.Hook].
func (h *Hook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook implements [redis.Hook]. asynq sends no script in a pipeline.
func (h *Hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook implements [redis.Hook].
func (h *Hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		switch recognise(cmd) {
		case acknowledge:
			return h.acknowledge(ctx, cmd, next)
		case dequeue:
			return h.dequeue(ctx, cmd, next)
		case forward:
			return h.forward(ctx, cmd, next)
		case other:
		}
		return next(ctx, cmd)
	}
}
