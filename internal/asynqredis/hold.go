package asynqredis

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

const (
	// holdTime is about how long an empty queue is waited for, see [Hook.holdFor].
	// Shutdown may take as long: a blocked connection cannot be called back.
	holdTime = time.Second
	// longestHold is the longest that holdFor returns.
	longestHold = holdTime + holdTime/4
	// holdSlack is how much later than that Redis may answer.
	holdSlack = 2 * time.Second

	// longestPaused bounds the pause after wake-ups that led to nothing because the
	// queue is paused: all that is in it ends each wait at once.
	longestPaused = 500 * time.Millisecond
	// longestLost bounds it where others were quicker. Whoever loses often is not
	// needed; this is how late it comes once it is.
	longestLost = 50 * time.Millisecond
)

// held is how a wait for an empty queue ended.
type held struct {
	woken  bool   // there is something in the queue
	asked  bool   // for it, at once
	slots  int    // for how many there was room
	tasks  []task // that were taken
	paused bool   // they could not be
}

// hold waits until the queue is no longer empty. It asks Redis to move the queue's
// last id to where it is: that blocks for as long as there is none, is ended by
// whoever adds one, and changes nothing. Right behind it, on the same connection,
// goes the dequeue, so that a message which wakes the lane is there one round trip
// sooner; but not where the lane's slots are other queues' as well, and would be
// kept from them for as long as nothing comes, nor where the client would not wait
// so long for the answers to a pipeline.
//
// The server's own loop waits, and a [Hook.Stop] meanwhile ends no wait: what it takes
// is put back then. In a goroutine of its own it could be left behind, but each message
// that ends a wait would come later, by the way from one to the other.
func (h *Hook) hold(ctx context.Context, l *lane) (held, error) {
	if h.stopped() {
		return held{}, nil
	}
	// What asynq was given last is in a goroutine that has only been made. Redis is
	// asked for more once that has gone as far as it can.
	runtime.Gosched()
	l.waiting.Store(true)
	defer l.waiting.Store(false)
	n := 0
	if l.slots.alone() && h.waitsLong() {
		if l.slots.overdrawn() {
			l.forgetLost()
		}
		n = l.slots.take(h.stopping)
	}
	h.holds.Add(1)
	defer h.holds.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), longestHold+holdSlack)
	defer cancel()
	got, err := h.await(ctx, l, n)
	l.slots.give(n - len(got.tasks))
	return got, err
}

// await is hold, and takes up to n tasks.
func (h *Hook) await(ctx context.Context, l *lane, n int) (held, error) {
	pending := key(l.queue, "pending")
	if !h.waitsLong() {
		err := h.Client.BLMove(ctx, pending, pending, "right", "right", holdTime).Err()
		return held{woken: err == nil}, unlessNil(err)
	}
	move := redis.NewStringCmd(ctx, "blmove", pending, pending, "right", "right", h.holdFor(time.Now()).Seconds())
	if n == 0 {
		err := h.Client.Process(ctx, move)
		return held{woken: err == nil}, unlessNil(err)
	}
	taking := h.taking(l, n)
	dequeue := taking.call.Command(ctx)
	redisscript.Pipelined(ctx, h.Client, func(p redis.Pipeliner) {
		_ = p.Process(ctx, move)
		_ = p.Process(ctx, dequeue)
	})
	tasks, err := taking.tasks()
	got := held{woken: move.Err() == nil, asked: true, slots: n, tasks: tasks, paused: errors.Is(err, redis.Nil)}
	if redisscript.Unknown(err) {
		got.asked, err = false, nil
	}
	switch {
	case len(tasks) > 0: // whatever became of the wait
		return got, nil
	case unlessNil(err) != nil:
		return got, err
	}
	return got, unlessNil(move.Err())
}

// holdFor is how long a wait lasts that begins now: until all waits of this process
// end. Each end wakes the process up, and that costs an idle one more than all that it
// then does.
func (h *Hook) holdFor(now time.Time) time.Duration {
	left := holdTime - now.Sub(h.began)%holdTime
	if left <= longestHold-holdTime {
		left += holdTime
	}
	return left
}

// waitsLong reports whether the client waits for longer than a hold takes.
func (h *Hook) waitsLong() bool {
	var timeout time.Duration
	switch c := h.Client.(type) {
	case *redis.Client:
		timeout = c.Options().ReadTimeout
	case *redis.ClusterClient:
		timeout = c.Options().ReadTimeout
	default:
		return false
	}
	return timeout <= 0 || timeout >= longestHold+holdTime/2
}

func unlessNil(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

// afterVain is how long to stay away after a wake-up that led to nothing: longer
// with each in a row.
func (s *lastLook) afterVain() time.Duration {
	longest := longestLost
	if s.paused {
		longest = longestPaused
	}
	pause := min(time.Millisecond<<min(s.vain, 10), longest)
	s.vain++
	return pause
}

// sleep returns early when the hook stops.
func (h *Hook) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.stopping:
	}
}
