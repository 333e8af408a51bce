package asynqredis

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestAWaitChangesNothing waits at a queue that has tasks, and at one that has none.
func TestAWaitChangesNothing(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 3)
	if woken, err := b.hook.hold(t.Context(), b.lane()); !woken || err != nil {
		t.Errorf("hold() of a queue with tasks = %v, %v; want true", woken, err)
	}
	if got := b.list("pending"); got != "[0 1 2]" {
		t.Errorf("then the queue is %s, want [0 1 2]", got)
	}
	empty := newByHand(t, 4, 0)
	if woken, err := empty.hook.hold(t.Context(), empty.lane()); woken || err != nil {
		t.Errorf("hold() of an empty queue = %v, %v; want false", woken, err)
	}
	if keys := empty.rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
		t.Errorf("then Redis has %q, want nothing", keys)
	}
}

// TestAWaitEndsWithTheHook stops it in the middle of one.
func TestAWaitEndsWithTheHook(t *testing.T) {
	t.Parallel()
	quickest := time.Hour
	for range 4 {
		b := newByHand(t, 4, 0)
		done := make(chan error, 1)
		go func() {
			_, err := b.ask()
			done <- err
		}()
		eventually(t, "it waits", b.lane().waiting.Load)
		start := time.Now()
		if err := b.hook.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, redis.Nil) {
			t.Errorf("a dequeue that was stopped = %v, want redis.Nil", err)
		}
		quickest = min(quickest, time.Since(start))
		b.hook.Wait()
		if clients := b.rdb.Info(t.Context(), "clients").Val(); !strings.Contains(clients, "blocked_clients:0") {
			t.Errorf("once Wait has returned, somebody still waits at Redis:\n%s", clients)
		}
	}
	if quickest > holdTime/2 {
		t.Errorf("the quickest of 4 waits ended %s after Stop", quickest)
	}
}

// TestWhoWakesInVainStaysAway counts how long: it is short where others were quicker
// and longer where the queue is paused, and begins again with every task.
func TestWhoWakesInVainStaysAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		paused bool
		want   time.Duration
	}{{false, longestLost}, {true, longestPaused}} {
		look := lastLook{paused: c.paused}
		var last time.Duration
		for range 100 {
			pause := look.afterVain()
			if pause < last || pause == 0 {
				t.Errorf("a pause of %s after one of %s", pause, last)
			}
			last = pause
		}
		if last != c.want {
			t.Errorf("paused %v: the longest pause is %s, want %s", c.paused, last, c.want)
		}
	}
	b := newByHand(t, 4, 1)
	b.lane().look = lastLook{empty: true, vain: 7}
	if err := b.rdb.Set(t.Context(), key("default", "paused"), 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ask(); !errors.Is(err, redis.Nil) || b.lane().look != (lastLook{empty: true, paused: true, vain: 8}) {
		t.Errorf("at a paused queue: %v, %+v", err, b.lane().look)
	}
	if err := b.rdb.Del(t.Context(), key("default", "paused")).Err(); err != nil {
		t.Fatal(err)
	}
	if b.asked(); b.lane().look != (lastLook{}) {
		t.Errorf("after a task: %+v, want nothing left of it", b.lane().look)
	}
	b.lane().look.empty = true
	if _, err := b.ask(); !errors.Is(err, redis.Nil) || b.lane().look.vain != 0 {
		t.Errorf("a wait that ran out: %v, %+v; want it not to count", err, b.lane().look)
	}
}
