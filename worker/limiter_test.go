package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

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
	for _, limit := range []RateLimit{
		{1, time.Minute}, {2, time.Minute}, {49, time.Minute}, {50, time.Minute}, {51, time.Minute}, {100, time.Minute},
		{999, time.Second}, {1000, time.Second}, {1050, time.Second}, {100_000, time.Minute}, {1_000_000, time.Second},
		{1_000_000, time.Hour}, {5000, 50 * time.Millisecond},
	} {
		rate, burst := limit.gcra()
		// GCRA lets burst requests through at once and rate more in a period; one
		// of them is where burst and rate meet. What came back before the period
		// and lay in stock is used in it too.
		most := float64(burst-1) + float64(rate)*(1+float64(limit.stock())/float64(limit.Period))
		if most > float64(limit.Limit) || rate < 1 || burst < 1 {
			t.Errorf("%v: rate %d, burst %d allow %g in a period", limit, rate, burst, most)
		}
		if 100*(rate+1) < 97*limit.Limit {
			t.Errorf("%v: rate %d gives away more than 3 %%", limit, rate)
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
	eventually(t, func() bool { return rdb.HExists(t.Context(), there.key, there.self).Val() }, func() string {
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
	inLine(t, l, tasks.Bulk, 2*time.Hour) // who stands before us has the patience
	begun := time.Now()
	if again, err := l.take(t.Context(), tasks.Bulk, 10*time.Millisecond); err != nil || again.Before(begun.Add(l.interval())) {
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

// inLine puts a message in line behind the others, and returns it.
func inLine(t *testing.T, l *limiter, lane tasks.Lane, hold time.Duration) *waiter {
	t.Helper()
	w := &waiter{end: time.Now().Add(hold), answer: make(chan answer, 1)}
	l.join(lane, w)
	t.Cleanup(func() { l.leave(lane, w) })
	return w
}

// awaitAnswer waits for w's answer.
func awaitAnswer(t *testing.T, w *waiter) answer {
	t.Helper()
	select {
	case a := <-w.answer:
		return a
	case <-time.After(patience):
		t.Fatal("no answer")
	}
	return answer{}
}

// awaitToken waits for w's answer, which must be a token.
func awaitToken(t *testing.T, w *waiter) {
	t.Helper()
	if a := awaitAnswer(t, w); !a.token() {
		t.Fatalf("answer = %+v, want a token", a)
	}
}

// tokenTap sees a limiter's requests for tokens, and can hold them up.
type tokenTap struct {
	passHook
	mu    sync.Mutex
	calls []tokenCall
	// held is what a request waits for before it is made, when it is not nil.
	held chan struct{}
	came chan int // how many interactive messages a held request asks for
}

// tokenCall is a request for tokens, and between which times Redis has granted them.
type tokenCall struct {
	start, end time.Time
	granted    int
}

func (h *tokenTap) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		script, ok := cmd.(*redis.Cmd)
		if !ok {
			return next(ctx, cmd)
		}
		if h.held != nil {
			interactive, _ := cmd.Args()[7].(int)
			h.came <- interactive
			<-h.held
		}
		c := tokenCall{start: time.Now()}
		err := next(ctx, cmd)
		c.end = time.Now()
		if reply, _ := script.Int64Slice(); len(reply) == 4 {
			c.granted = int(reply[0] + reply[1] + reply[3])
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.calls = append(h.calls, c)
		return err
	}
}

func (h *tokenTap) seen() []tokenCall {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.calls)
}

// tapped returns a limiter in a process of its own, as it were.
func tapped(t *testing.T, server *redistest.Server, limit RateLimit) (*limiter, *tokenTap) {
	t.Helper()
	rdb := server.Client()
	if err := tokensScript.Load(t.Context(), rdb).Err(); err != nil {
		t.Fatal(err)
	}
	tap := &tokenTap{}
	rdb.AddHook(tap)
	return newLimiter(rdb, "p", limit), tap
}

// held is tapped, and each request waits until release is sent to.
func held(t *testing.T, server *redistest.Server, limit RateLimit) (l *limiter, asks <-chan int, release chan<- struct{}) {
	t.Helper()
	l, tap := tapped(t, server, limit)
	tap.held, tap.came = make(chan struct{}), make(chan int, 100)
	t.Cleanup(func() { close(tap.held) })
	return l, tap.came, tap.held
}

func TestNoWindowHasMoreTokensThanTheLimit(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]RateLimit{
		"one at a time":     {Limit: 10, Period: 200 * time.Millisecond},
		"a burst":           {Limit: 200, Period: 500 * time.Millisecond},
		"some are in stock": {Limit: 2000, Period: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			var taps []*tokenTap
			var taken atomic.Int64
			var wg sync.WaitGroup
			begun := time.Now()
			for process := range 3 {
				l, tap := tapped(t, server, limit)
				taps = append(taps, tap)
				for caller := range 20 {
					random := rand.New(rand.NewPCG(uint64(process), uint64(caller)))
					wg.Go(func() {
						for time.Since(begun) < 4*limit.Period {
							lane := tasks.Lanes()[random.IntN(2)]
							ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+random.Int64N(int64(limit.Period))))
							again, err := l.take(ctx, lane, time.Duration(random.Int64N(int64(limit.Period))))
							cancel()
							switch {
							case err == nil && again.IsZero():
								taken.Add(1)
							case err != nil && !errors.Is(err, context.DeadlineExceeded):
								t.Errorf("take() = %v", err)
							}
						}
					})
				}
			}
			wg.Wait()

			var calls []tokenCall
			granted := 0
			for _, tap := range taps {
				for _, c := range tap.seen() {
					if granted += c.granted; c.granted > 0 {
						calls = append(calls, c)
					}
				}
			}
			if most := mostGranted(calls, limit.Period); most > limit.Limit {
				t.Errorf("%d tokens in one %s, limit %d", most, limit.Period, limit.Limit)
			}
			if int(taken.Load()) > granted {
				t.Errorf("%d messages went with %d tokens", taken.Load(), granted)
			}
			if int(taken.Load()) < limit.Limit {
				t.Errorf("%d messages went in four periods, limit %d: too few to show anything", taken.Load(), limit.Limit)
			}
		})
	}
}

// mostGranted is how many tokens were granted within one period for certain:
// between the start of the first request for them and the end of the last.
func mostGranted(calls []tokenCall, period time.Duration) int {
	most := 0
	for _, first := range calls {
		n := 0
		for _, c := range calls {
			if !c.start.Before(first.start) && c.end.Sub(first.start) < period {
				n += c.granted
			}
		}
		most = max(most, n)
	}
	return most
}

func TestThoseWhoWaitAskTogether(t *testing.T) {
	t.Parallel()
	const callers, each = 256, 20
	for name, limit := range map[string]RateLimit{
		"with a stock":    {Limit: 1_000_000, Period: time.Second},
		"without a stock": {Limit: 999, Period: time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, tap := tapped(t, redistest.Start(t), limit)
			var wg sync.WaitGroup
			for caller := range callers {
				wg.Go(func() {
					for range each {
						if again, err := l.take(t.Context(), tasks.Lanes()[caller%2], patience); err != nil || !again.IsZero() {
							t.Errorf("take() = %v, %v", again, err)
						}
					}
				})
			}
			wg.Wait()
			if n := len(tap.seen()); n > callers*each/10 {
				t.Errorf("%d round trips for %d tokens, want one in ten at most", n, callers*each)
			}
		})
	}
}

func TestAsManyTokensAreTakenAsThereAreMessages(t *testing.T) {
	t.Parallel()
	l, asks, release := held(t, redistest.Start(t), RateLimit{Limit: 200, Period: time.Hour}) // a burst of five
	first := inLine(t, l, tasks.Interactive, patience)
	if n := <-asks; n != 1 {
		t.Fatalf("the first request asks for %d, want the one", n)
	}
	group := []*waiter{inLine(t, l, tasks.Interactive, patience), inLine(t, l, tasks.Interactive, patience)}
	release <- struct{}{}
	awaitToken(t, first)
	if n := <-asks; n != 2 {
		t.Fatalf("the second request asks for %d, want the two that came meanwhile", n)
	}
	release <- struct{}{}
	for _, w := range group {
		awaitToken(t, w)
	}
	if out := l.rdb.HGet(t.Context(), l.key, "out").Val(); out[:1] != "2" && out[:1] != "3" {
		t.Errorf("%s tokens are out, want those of three messages", out)
	}
}

func TestBulkYieldsToWhomAnotherProcessSpeaksFor(t *testing.T) {
	t.Parallel()
	l, _ := tapped(t, redistest.Start(t), RateLimit{Limit: 200, Period: time.Second})
	until := func(at time.Time) {
		if err := l.rdb.HSet(t.Context(), l.key, "another", at.UnixMicro()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	until(time.Now().Add(time.Hour))
	if again, err := l.take(t.Context(), tasks.Bulk, 50*time.Millisecond); err != nil || again.IsZero() {
		t.Errorf("take() for bulk while an interactive message waits elsewhere = %v, %v, want a later time", again, err)
	}
	awaitToken(t, inLine(t, l, tasks.Interactive, patience))
	until(time.Now().Add(-time.Second)) // it has died
	awaitToken(t, inLine(t, l, tasks.Bulk, patience))
	if l.rdb.HExists(t.Context(), l.key, "another").Val() {
		t.Error("the dead process is still listed")
	}
}

func TestSomeOfAGroupMayBeRefused(t *testing.T) {
	t.Parallel()
	l, asks, release := held(t, redistest.Start(t), RateLimit{Limit: 100, Period: time.Hour}) // a burst of three
	first := inLine(t, l, tasks.Interactive, patience)
	<-asks
	var group []*waiter
	for range 4 {
		group = append(group, inLine(t, l, tasks.Interactive, 10*time.Second)) // the next token comes later
	}
	release <- struct{}{}
	awaitToken(t, first)
	<-asks
	release <- struct{}{}
	for i, w := range group {
		a := awaitAnswer(t, w)
		if want := i < 2; a.token() != want {
			t.Errorf("message %d has a token: %t, want %t", i, a.token(), want)
		}
		if !a.token() && time.Until(a.again) > time.Minute {
			t.Errorf("message %d is to ask again in %s, want when the next token falls due", i, time.Until(a.again))
		}
	}
}

func TestInteractiveMessagesOfAllProcessesComeFirst(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	limit := RateLimit{Limit: 1, Period: 50 * time.Millisecond}
	var processes []*limiter
	for range 2 {
		l, _ := tapped(t, server, limit)
		processes = append(processes, l)
	}
	var mu sync.Mutex
	var order []tasks.Lane
	var wg sync.WaitGroup
	start := func(lane tasks.Lane) {
		for _, l := range processes {
			for range 4 {
				wg.Go(func() {
					if again, err := l.take(t.Context(), lane, patience); err != nil || !again.IsZero() {
						t.Errorf("take(%s) = %v, %v", lane, again, err)
					}
					mu.Lock()
					defer mu.Unlock()
					order = append(order, lane)
				})
			}
		}
	}
	start(tasks.Bulk)
	eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(order) > 0
	}, func() string { return "bulk messages never went" })
	start(tasks.Interactive)
	wg.Wait()
	last := 0
	for i, lane := range order {
		if lane == tasks.Interactive {
			last = i
		}
	}
	// One went before there were interactive messages; in each process one may
	// have been on its way, or the next to come before they were seen.
	if bulk := last + 1 - 4*len(processes); bulk > 4 {
		t.Errorf("%d bulk messages went before the last interactive one: %v", bulk, order)
	}
}

func TestAnInteractiveMessageIsSeenThoughBulkRests(t *testing.T) {
	t.Parallel()
	l, _ := tapped(t, redistest.Start(t), RateLimit{Limit: 1, Period: time.Hour})
	awaitToken(t, inLine(t, l, tasks.Bulk, time.Second))
	inLine(t, l, tasks.Bulk, 2*time.Hour)
	eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.wake != nil
	}, func() string { return "the bulk message does not rest" })
	inLine(t, l, tasks.Interactive, 2*time.Hour)
	eventually(t, func() bool { return l.rdb.HExists(t.Context(), l.key, l.self).Val() }, func() string {
		return "others would not yield to the interactive message until the bulk message has rested"
	})
}

func TestMessagesOfALaneGoInTheirOrder(t *testing.T) {
	t.Parallel()
	l, _ := tapped(t, redistest.Start(t), RateLimit{Limit: 100, Period: 500 * time.Millisecond})
	var waiting []*waiter
	for range 20 {
		waiting = append(waiting, inLine(t, l, tasks.Bulk, patience))
	}
	eventually(t, func() bool {
		served := 0
		for i := len(waiting) - 1; i >= 0; i-- { // from behind: more may be served meanwhile
			if len(waiting[i].answer) > 0 {
				served++
			} else if served > 0 {
				t.Fatalf("message %d waits, and %d behind it have gone", i, served)
			}
		}
		return served == len(waiting)
	}, func() string { return "messages were left in line" })
}

func TestWhoLeavesLosesNobodysToken(t *testing.T) {
	t.Parallel()
	l, asks, release := held(t, redistest.Start(t), RateLimit{Limit: 200, Period: time.Hour}) // a burst of five
	first := inLine(t, l, tasks.Interactive, patience)
	<-asks
	left := []*waiter{inLine(t, l, tasks.Bulk, patience), inLine(t, l, tasks.Bulk, patience)}
	release <- struct{}{}
	awaitToken(t, first)
	<-asks // the two that are about to leave
	for _, w := range left {
		if !l.leave(tasks.Bulk, w) {
			t.Fatal("a message that waits is not in line")
		}
	}
	next := []*waiter{inLine(t, l, tasks.Interactive, patience), inLine(t, l, tasks.Bulk, patience)}
	release <- struct{}{}
	for _, w := range next {
		awaitToken(t, w) // and not from a third request, which nobody lets go
	}
}

// endsInTheWait is a context that ends between the answer and its reading.
type endsInTheWait struct {
	context.Context
	looks atomic.Int32
}

func (c *endsInTheWait) Err() error {
	if c.looks.Add(1) > 1 {
		return context.Canceled
	}
	return nil
}

func TestATokenThatComesTooLateGoesToTheNextInLine(t *testing.T) {
	t.Parallel()
	l, asks, release := held(t, redistest.Start(t), RateLimit{Limit: 1, Period: time.Hour})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := l.take(&endsInTheWait{Context: t.Context()}, tasks.Interactive, patience); !errors.Is(err, context.Canceled) {
			t.Errorf("take() = %v, want canceled", err)
		}
	})
	<-asks
	next := inLine(t, l, tasks.Bulk, 2*time.Hour)
	release <- struct{}{}
	wg.Wait()
	awaitToken(t, next)
}

func TestNobodyAsksForAnEmptyLine(t *testing.T) {
	t.Parallel()
	l, tap := tapped(t, redistest.Start(t), RateLimit{Limit: 1, Period: time.Hour})
	awaitToken(t, inLine(t, l, tasks.Bulk, time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			if _, err := l.take(ctx, tasks.Lanes()[i%2], 2*time.Hour); !errors.Is(err, context.Canceled) {
				t.Errorf("take() = %v, want canceled", err)
			}
		})
	}
	eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.interactive)+len(l.bulk) == 10
	}, func() string { return "they are not in line" })
	cancel()
	wg.Wait()
	eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return !l.asking
	}, func() string { return "somebody still waits for a token that nobody wants" })
	if n := len(tap.seen()); n > 20 {
		t.Errorf("%d requests for tokens an hour away", n)
	}
}

func TestTheStockIsSmallAndSoonLost(t *testing.T) {
	t.Parallel()
	limit := RateLimit{Limit: 100_000, Period: time.Hour} // one comes back in 36 ms
	l, tap := tapped(t, redistest.Start(t), limit)
	take := func() {
		t.Helper()
		if again, err := l.take(t.Context(), tasks.Bulk, time.Second); err != nil || !again.IsZero() {
			t.Fatalf("take() = %v, %v", again, err)
		}
	}
	locked := func(f func()) {
		l.mu.Lock()
		defer l.mu.Unlock()
		f()
	}
	stock := func() (n int) {
		locked(func() { n = l.stock })
		return n
	}
	take()
	locked(func() { l.stock, l.stockEnds = 5, time.Now().Add(time.Hour) })
	take()
	if n := len(tap.seen()); n != 1 || stock() != 4 {
		t.Errorf("%d requests and %d in stock, want 1 and 4", n, stock())
	}
	l.pause(time.Now(), time.Hour)
	if again, err := l.take(t.Context(), tasks.Bulk, time.Second); err != nil || again.IsZero() || stock() == 3 {
		t.Errorf("take() in a pause = %v, %v, want a later time and no token of the stock", again, err)
	}
	l.pausedUntil.Store(0)
	locked(func() { l.stock, l.stockEnds = 5, time.Now() })
	take()
	if n := len(tap.seen()); n != 2 {
		t.Errorf("%d requests, want a second one when the stock's time is over", n)
	}

	// As many as were used in the same time before, and of the first half of the
	// burst alone.
	for _, used := range []int{0, 7, 100_000} {
		before, err := l.rdb.HGet(t.Context(), l.key, "out").Float64()
		if err != nil {
			t.Fatal(err)
		}
		locked(func() { l.stock, l.used, l.asked = 0, used, time.Now() })
		take()
		_, burst := limit.gcra()
		most := min(used, burst/2-int(before))
		if got := stock(); got > most || got < most-2 {
			t.Errorf("after %d were used, %d are in stock, want %d", used, got, most)
		}
	}
}

func TestAClockThatWasSetBackStopsNothing(t *testing.T) {
	t.Parallel()
	l, _ := tapped(t, redistest.Start(t), RateLimit{Limit: 1, Period: 20 * time.Millisecond})
	if err := l.rdb.HSet(t.Context(), l.key, "out", 1, "at", time.Now().Add(time.Hour).UnixMicro()).Err(); err != nil {
		t.Fatal(err)
	}
	awaitToken(t, inLine(t, l, tasks.Bulk, patience))
}

func TestAMessageThatCannotHaveItsTokenInTimeLeavesAtOnce(t *testing.T) {
	t.Parallel()
	l, _ := tapped(t, redistest.Start(t), RateLimit{Limit: 1, Period: time.Hour})
	awaitToken(t, inLine(t, l, tasks.Bulk, time.Second))
	var waits []bool
	for _, hold := range []time.Duration{30 * time.Minute, 2 * time.Hour} {
		w := inLine(t, l, tasks.Bulk, hold)
		eventually(t, func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			return len(w.answer) > 0 || l.wake != nil
		}, func() string { return "it is not asked for" })
		waits = append(waits, len(w.answer) == 0)
	}
	if diff := cmp.Diff([]bool{false, true}, waits); diff != "" {
		t.Errorf("who waits for a token an hour away (-want +got):\n%s", diff)
	}
}
