// Package asynqredis mends what asynq v0.26 does with Redis, from underneath: a
// go-redis hook on the client that an asynq server is given. It is no fork and
// knows nothing of otpq's messages; it recognises asynq's scripts by their keys,
// and its test holds that to the pinned version.
package asynqredis

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Hook mends two things.
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
// It is safe for concurrent use; several servers may share the client it is on.
type Hook struct {
	// failures counts the dequeues that have failed in a row, all lanes together.
	failures atomic.Int64
}

var _ redis.Hook = (*Hook)(nil)

const (
	// leaseTime bounds an acknowledgement that comes without a deadline: by then
	// another server may have the task.
	leaseTime = 30 * time.Second
	// tryTime bounds one try, so that a connection that hangs leaves time for another.
	tryTime = 3 * time.Second

	firstPause = 50 * time.Millisecond
	// longestPause is how long after its return a Redis may be left waiting.
	longestPause = 2 * time.Second
)

// kind is what a command means to asynq.
type kind int

const (
	other kind = iota
	dequeue
	acknowledge
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
		case other:
		}
		return next(ctx, cmd)
	}
}

// acknowledge tries until Redis has an answer. Its context is canceled when
// asynq's own retry runs, so only the deadline is kept: the end of the lease.
func (h *Hook) acknowledge(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(leaseTime)
	}
	ctx = context.WithoutCancel(ctx)
	for tries := 1; ; tries++ {
		try, cancel := context.WithTimeout(ctx, min(tryTime, max(time.Until(end), 0)))
		err := next(try, cmd)
		cancel()
		if tries > 1 && err != nil && err.Error() == "NOT FOUND" {
			// An earlier try landed, and only its reply was lost.
			cmd.SetErr(nil)
			return nil
		}
		wait := pause(tries)
		if !transient(err) || time.Until(end) < wait {
			return err
		}
		<-time.After(wait) // nothing ends it early: asynq has to hear of the task's end
	}
}

// dequeue lets asynq have the error, after a pause.
func (h *Hook) dequeue(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	err := next(ctx, cmd)
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

// pause is the wait after the n-th failure in a row: exponential, with jitter so
// that lanes and workers do not come back together.
func pause(n int) time.Duration {
	longest := min(firstPause<<min(n-1, 10), longestPause)
	return longest/2 + rand.N(longest/2)
}

// transient reports whether the same command may succeed later: Redis was not
// reached, or was not ready.
func transient(err error) bool {
	if err == nil || errors.Is(err, redis.Nil) || errors.Is(err, redis.ErrClosed) {
		return false
	}
	var reply redis.Error
	var network net.Error
	if !errors.As(err, &reply) || errors.As(err, &network) {
		return true
	}
	for _, notReady := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "OOM", "MISCONF", "NOREPLICAS"} {
		if strings.HasPrefix(reply.Error(), notReady) {
			return true
		}
	}
	return false
}
