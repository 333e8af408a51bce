package worker

import (
	"testing"
	"time"
)

func TestBackoffIsExponentialWithFullJitter(t *testing.T) {
	retry := Retry{Initial: time.Second, Max: 10 * time.Second}
	for n, ceiling := range map[int]time.Duration{
		1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 63: 10 * time.Second, 1000: 10 * time.Second,
	} {
		var least, most time.Duration = ceiling, 0
		for range 2000 {
			d := retry.backoff(n)
			least, most = min(least, d), max(most, d)
		}
		if most >= ceiling || most < ceiling*9/10 || least > ceiling/10 {
			t.Errorf("backoff(%d) lies in [%s, %s], want all of [0, %s)", n, least, most, ceiling)
		}
	}
	if d := (Retry{}).backoff(1); d != 0 {
		t.Errorf("backoff without a limit = %s, want 0", d)
	}
}

func TestRetryAt(t *testing.T) {
	now := time.Date(2026, 11, 23, 3, 0, 0, 300_000_000, time.UTC)
	at := func(seconds float64) time.Time { return now.Add(time.Duration(seconds * float64(time.Second))) }
	for _, c := range []struct {
		name        string
		delay, hint time.Duration
		notAfter    time.Time
		want        time.Time
	}{
		{"is a whole second, never earlier than the wait", 2 * time.Second, 0, at(60), at(2.7)},
		{"takes the longer of back-off and hint", time.Second, 5 * time.Second, at(60), at(5.7)},
		{"is cut so that a last attempt fits before the deadline", 30 * time.Second, 0, at(10), at(8.7)},
		{"does not cut what the provider asked for", time.Second, 30 * time.Second, at(10), at(10)},
		{"waits for the deadline when no attempt fits", time.Second, 0, at(0.9), at(0.9)},
	} {
		if got := retryAt(now, c.delay, c.hint, c.notAfter); !got.Equal(c.want) {
			t.Errorf("a retry %s: retryAt() = +%s, want +%s", c.name, got.Sub(now), c.want.Sub(now))
		}
	}
}
