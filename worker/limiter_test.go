package worker

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func TestTheRateLimitHoldsForAllWorkersTogether(t *testing.T) {
	r := newRig(t)
	limit := RateLimit{Limit: 20, Period: time.Second}
	f := always(accepted)
	for range 2 {
		r.start(nil, f.config(func(pc *ProviderConfig) { pc.RateLimit = limit }))
	}
	var ids []string
	for i := range 50 {
		ids = append(ids, r.send(enqueue.InLane(tasks.Lanes()[i%2])))
	}
	for _, id := range ids {
		if rec := r.awaitState(id, status.Accepted); len(rec.Attempts) != 1 {
			t.Errorf("waiting for the limit cost attempts: %+v", rec.Attempts)
		}
	}
	// The token is taken in Redis and the request starts a little later, so
	// two requests may come closer together than their tokens: hence one over.
	if most := mostIn(f.requests(), limit.Period); most > limit.Limit+1 {
		t.Errorf("%d requests in one %s, limit %d", most, limit.Period, limit.Limit)
	}
}

// mostIn is the largest number of times in any window of one period.
func mostIn(at []time.Time, period time.Duration) int {
	slices.SortFunc(at, time.Time.Compare)
	most := 0
	for i := range at {
		n := 0
		for _, later := range at[i:] {
			if later.Sub(at[i]) < period {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestGCRANeverAllowsMoreThanTheLimitInAnyPeriod(t *testing.T) {
	for _, limit := range []int{1, 2, 49, 50, 51, 100, 1000, 100_000} {
		g := RateLimit{Limit: limit, Period: time.Minute}.gcra()
		// GCRA lets burst requests through at once and rate more in a period;
		// one of them is where burst and rate meet.
		if most := g.Burst + g.Rate - 1; most > limit || g.Rate < 1 || g.Burst < 1 {
			t.Errorf("limit %d: rate %d, burst %d allow %d in a period", limit, g.Rate, g.Burst, most)
		}
		if 100*g.Rate < 97*limit {
			t.Errorf("limit %d: rate %d gives away more than 3 %%", limit, g.Rate)
		}
	}
}

func TestInteractiveMessagesComeFirst(t *testing.T) {
	r := newRig(t)
	f := always(accepted)
	r.start(nil, f.config(func(pc *ProviderConfig) { pc.RateLimit = RateLimit{Limit: 10, Period: time.Second} }))
	for range 60 {
		r.send(enqueue.InLane(tasks.Bulk))
	}
	eventually(t, func() bool { return len(f.requests()) > 5 }, func() string { return "bulk messages never went" })
	for range 10 {
		before := len(f.requests())
		r.awaitState(r.send(), status.Accepted)
		// One bulk request may be past the limit already, and one may take the
		// token that falls due before the interactive message is in line.
		if n := len(f.requests()) - before; n > 3 {
			t.Errorf("%d requests went before an interactive message", n-1)
		}
	}
}

func TestAnInteractiveMessageInAnotherProcessHoldsBulkBack(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	limit := RateLimit{Limit: 1, Period: 300 * time.Millisecond}
	here, there := newLimiter(rdb, "p", limit), newLimiter(rdb, "p", limit)
	take := func(l *limiter, lane tasks.Lane) {
		if again, err := l.take(t.Context(), lane, patience); err != nil || !again.IsZero() {
			t.Errorf("take(%s) = %v, %v", lane, again, err)
		}
	}
	take(here, tasks.Bulk) // the token is gone
	var mu sync.Mutex
	var order []tasks.Lane
	var wg sync.WaitGroup
	run := func(l *limiter, lane tasks.Lane) {
		wg.Go(func() {
			take(l, lane)
			mu.Lock()
			defer mu.Unlock()
			order = append(order, lane)
		})
	}
	run(there, tasks.Interactive)
	eventually(t, func() bool { return rdb.Exists(t.Context(), there.waitingKey()).Val() == 1 }, func() string {
		return "the waiting interactive message is not to be seen by others"
	})
	run(here, tasks.Bulk)
	wg.Wait()
	if order[0] != tasks.Interactive {
		t.Errorf("order = %v, want the interactive message first", order)
	}
}

func TestTakeEndsWithItsHoldAndItsContext(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	l := newLimiter(server.Client(), "p", RateLimit{Limit: 1, Period: time.Hour})
	if again, err := l.take(t.Context(), tasks.Interactive, time.Second); err != nil || !again.IsZero() {
		t.Fatalf("first take() = %v, %v", again, err)
	}
	if again, err := l.take(t.Context(), tasks.Interactive, time.Second); err != nil || time.Until(again) < 50*time.Minute {
		t.Errorf("take() without a token = %v, %v, want when the next falls due", again, err)
	}
	l.line[tasks.Bulk] <- struct{}{} // someone stands in line before us
	if again, err := l.take(t.Context(), tasks.Bulk, 10*time.Millisecond); err != nil || again.IsZero() {
		t.Errorf("take() behind another = %v, %v, want a later time", again, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.take(ctx, tasks.Bulk, time.Hour); err == nil {
		t.Error("take() with a canceled context = nil error")
	}
	server.Stop()
	if _, err := l.take(t.Context(), tasks.Interactive, time.Second); err == nil {
		t.Error("take() without Redis = nil error: a limit that cannot be asked must not be passed")
	}
}

func TestAProviders429PausesItAndCostsNothing(t *testing.T) {
	r := newRig(t)
	f := inTurn(providers.Retry(providers.ReasonRateLimited, 2*time.Second, nil), accepted)
	r.start(nil, f.config(func(pc *ProviderConfig) {
		pc.Retry.MaxAttempts = 1 // which a 429 does not use up
		pc.Concurrency = map[tasks.Lane]int{tasks.Interactive: 1, tasks.Bulk: 1}
	}))
	first, second := r.send(), r.send(enqueue.InLane(tasks.Bulk))
	r.awaitState(first, status.Accepted)
	r.awaitState(second, status.Accepted)
	at := f.requests()
	if len(at) < 3 {
		t.Fatalf("%d requests, want 3", len(at))
	}
	// The other lane's may have been on its way already.
	if gap := at[len(at)-1].Sub(at[0]); gap < 2*time.Second {
		t.Errorf("last request %s after the 429, want at least the 2 s asked for", gap)
	}
}
