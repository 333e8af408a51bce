package asynqredis

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"
)

// TestOneLookASecondFindsWhatFallsDue has asynq look at its intervals, and counts
// how often Redis is asked. A look counts for the second it was for, even when the
// clock passes on before it is made.
func TestOneLookASecondFindsWhatFallsDue(t *testing.T) {
	t.Parallel()
	h := &Hook{}
	h.Serve("default", 1)
	looks, moved := 0, int64(0)
	look := h.ProcessHook(func(_ context.Context, cmd redis.Cmder) error {
		looks++
		cmd.(*redis.Cmd).SetVal(moved)
		return nil
	})
	for _, c := range []struct {
		why    string
		set    string
		second any
		moves  int64
		looks  int
	}{
		{"the first look of a second", "retry", int64(100), 0, 1},
		{"another of the same", "retry", int64(100), 0, 1},
		{"the same second of the other set", "scheduled", int64(100), 0, 2},
		{"the next second", "retry", int64(101), 100, 3},
		{"where something was found there may be more", "retry", int64(101), 3, 4},
		{"until nothing is", "retry", int64(101), 0, 5},
		{"then no more", "retry", int64(101), 0, 5},
		{"a second that is written in another way", "retry", "101", 0, 6},
	} {
		moved = c.moves
		cmd := redis.NewCmd(t.Context(), "evalsha", asynqForward, 2, key("default", c.set), key("default", "pending"), c.second)
		if err := look(t.Context(), cmd); err != nil || looks != c.looks {
			t.Errorf("%s: %d looks, %v; want %d", c.why, looks, err, c.looks)
		}
		if n, err := cmd.Int64(); err != nil || n != c.moves {
			t.Errorf("%s: asynq is told of %d, %v; want %d", c.why, n, err, c.moves)
		}
	}
}

// TestALookThatFailsIsMadeAgain has Redis not answer.
func TestALookThatFailsIsMadeAgain(t *testing.T) {
	t.Parallel()
	h := &Hook{}
	h.Serve("default", 1)
	looks := 0
	look := h.ProcessHook(func(_ context.Context, cmd redis.Cmder) error {
		looks++
		cmd.SetErr(context.DeadlineExceeded)
		return context.DeadlineExceeded
	})
	for range 2 {
		cmd := redis.NewCmd(t.Context(), "evalsha", asynqForward, 2, key("default", "retry"), key("default", "pending"), int64(100))
		if err := look(t.Context(), cmd); err == nil {
			t.Error("a look that failed = nil")
		}
	}
	if looks != 2 {
		t.Errorf("%d looks, want 2", looks)
	}
}
