package asynqredis

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

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

// acknowledge tries until Redis has an answer. Its context is canceled when
// asynq's own retry runs, so only the deadline is kept: the end of the lease.
func (h *Hook) acknowledge(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(leaseTime)
	}
	ctx = context.WithoutCancel(ctx)
	try := func() error {
		ctx, cancel := context.WithTimeout(ctx, min(tryTime, max(time.Until(end), 0)))
		defer cancel()
		return next(ctx, cmd)
	}
	if queue, id := taskOf(cmd); id != "" {
		h.acking.Store(id, true)
		defer h.acking.Delete(id)
		if l := h.lanes.get(queue); l != nil {
			defer l.ended(id)
			if d := asDone(cmd); d != nil {
				try = func() error { return h.done(l, *d, cmd) }
			}
		}
	}
	for tries := 1; ; tries++ {
		err := try()
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

// taskOf is the task that an acknowledgement is for.
func taskOf(cmd redis.Cmder) (queue, id string) {
	for _, arg := range cmd.Args() {
		key, _ := arg.(string)
		if rest, ok := strings.CutPrefix(key, "asynq:{"); ok {
			if queue, id, ok := strings.Cut(rest, "}:t:"); ok {
				return queue, id
			}
		}
	}
	return "", ""
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
