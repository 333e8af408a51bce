package asynqredis

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// holdTime is how long an empty queue is waited for. Shutdown may take as
	// long: a blocked connection cannot be called back.
	holdTime = time.Second
	// holdSlack is how much later than that Redis may answer.
	holdSlack = 2 * time.Second

	// longestPaused bounds the pause after wake-ups that led to nothing because the
	// queue is paused: all that is in it ends each wait at once.
	longestPaused = 500 * time.Millisecond
	// longestLost bounds it where others were quicker. Whoever loses often is not
	// needed; this is how late it comes once it is.
	longestLost = 50 * time.Millisecond
)

// hold waits until the queue is no longer empty, and reports whether it is so. It
// asks Redis to move the queue's last id to where it is: that blocks for as long as
// there is none, is ended by whoever adds one, and changes nothing.
func (h *Hook) hold(ctx context.Context, l *lane) (bool, error) {
	l.waiting.Store(true)
	defer l.waiting.Store(false)
	pending := key(l.queue, "pending")
	done := make(chan error, 1)
	h.holds.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdTime+holdSlack)
		defer cancel()
		done <- h.Client.BLMove(ctx, pending, pending, "RIGHT", "RIGHT", holdTime).Err()
	})
	select {
	case err := <-done:
		if errors.Is(err, redis.Nil) {
			return false, nil
		}
		return err == nil, err
	case <-h.stopping:
		return false, nil
	}
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
