package worker

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
)

// TestARollingRestartLosesDoublesAndDelaysNothing replaces two workers one after
// the other while messages come in, and compares with a stretch without that.
func TestARollingRestartLosesDoublesAndDelaysNothing(t *testing.T) {
	r := newRig(t)
	d := newDesk(t, func(w http.ResponseWriter, _ *http.Request, _ string, _ int) {
		<-time.After(50 * time.Millisecond) // so that some are always in flight
		takes(w)
	})
	next := 0 // person
	var ids []string
	// run sends for a while and returns the longest time from Send to the provider.
	run := func(during func()) time.Duration {
		t.Helper()
		done := make(chan struct{})
		go func() { defer close(done); during() }()
		first := next
		var sent []time.Time
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for busy := true; busy; {
			select {
			case <-done:
				busy = false
			case <-tick.C:
				sent = append(sent, time.Now())
				ids = append(ids, r.sendTo(unimedbh.Request{Username: person(next), Type: "EMAIL"}))
				next++
			}
		}
		var longest time.Duration
		for i, at := range sent {
			rec := r.awaitState(ids[first+i], status.Accepted)
			made := d.requests(person(first + i))
			if len(made) != 1 || rec.PossibleDuplicate {
				t.Errorf("%d requests for one message, possible duplicate %v", len(made), rec.PossibleDuplicate)
				continue
			}
			longest = max(longest, made[0].Sub(at))
		}
		return longest
	}
	workers := []*process{r.startProcess(d.URL), r.startProcess(d.URL)}
	living := func(n int) {
		eventually(t, func() bool {
			list, err := Workers(t.Context(), r.rdb)
			return err == nil && len(list) == n
		}, func() string { return "the workers never came up" })
	}
	living(2)
	replace := func() {
		for i, old := range workers {
			old.signal(syscall.SIGTERM)
			<-old.exited
			workers[i] = r.startProcess(d.URL)
			living(2)
		}
	}
	// The machine may stall at any time: a delay that is ours comes every time.
	var quiet, restarting time.Duration
	for range 3 {
		quiet = run(func() { <-time.After(2 * time.Second) })
		restarting = run(replace)
		if restarting <= quiet+time.Second {
			break
		}
	}
	t.Logf("%d messages; longest until the provider: %s, and %s while workers restarted", next, quiet, restarting)
	if restarting > quiet+time.Second {
		t.Errorf("a message came %s after Send while workers restarted, and %s at most without", restarting, quiet)
	}
}

// TestNothingIsAskedOfRedisAfterShutdown counts what goes to Redis once Shutdown
// has returned: the client may be closed then, and asynq would panic.
func TestNothingIsAskedOfRedisAfterShutdown(t *testing.T) {
	r := newRig(t)
	count := &counting{}
	rdb := r.newClient()
	_, stop := r.startOn(rdb, count, nil, always(accepted).config())
	r.awaitState(r.send(), status.Accepted)
	stop()
	before := count.n.Load()
	if before == 0 {
		t.Fatal("nothing was counted")
	}
	if err := rdb.Close(); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * beatInterval) // every loop would have turned
	if after := count.n.Load(); after != before {
		t.Errorf("%d commands after Shutdown", after-before)
	}
	stop() // a second time is harmless
}

type counting struct {
	passHook
	n atomic.Int64
}

func (c *counting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.n.Add(1)
		return next(ctx, cmd)
	}
}

// TestShutdownEndsThoughRedisHangs stops a worker whose Redis takes commands and
// never answers.
func TestShutdownEndsThoughRedisHangs(t *testing.T) {
	r := newRig(t)
	_, stop := r.start(nil, always(accepted).config())
	r.awaitState(r.send(), status.Accepted)
	r.awaitEmptyQueues() // an acknowledgement is tried until its lease ends
	r.redis.Pause()
	defer r.redis.Resume()
	done := make(chan struct{})
	go func() { defer close(done); stop() }()
	select {
	case <-done:
	case <-time.After(2 * DefaultShutdownTimeout):
		t.Error("Shutdown never returned")
	}
}

// as is an error that panics when it is looked into.
type as struct{}

func (as) Error() string { return "panics" }
func (as) As(any) bool   { panic("looked into") }

// brokenWriter is a log that panics.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { panic("disk full") }

func TestCallbacksThatPanicEndNothing(t *testing.T) {
	t.Parallel()
	if d := retryDelay(1, as{}, nil); d != time.Second {
		t.Errorf("retryDelay() = %s, want 1s", d)
	}
	if !isFailure(as{}) {
		t.Error("isFailure() = false, want true of what cannot be told")
	}
	log := asynqLog{zerolog.New(brokenWriter{})}
	for _, write := range []func(...any){log.Debug, log.Info, log.Warn, log.Error, log.Fatal} {
		write("line")
	}
	if err := guard(func() error { panic("joana@example.com") }); err == nil || strings.Contains(err.Error(), "joana") {
		t.Errorf("guard() = %v, want an error that does not say what was panicked with", err)
	}
}

// panickingStore panics at the end of the first attempt.
type panickingStore struct {
	status.Store
	panicked atomic.Bool
}

func (s *panickingStore) Finish(ctx context.Context, f status.Finish) error {
	if s.panicked.CompareAndSwap(false, true) {
		panic("a bug in the store")
	}
	return s.Store.Finish(ctx, f)
}

// TestAPanicAfterTheRequestCostsNoSecondOne has the account of an attempt fail in
// the worst way.
func TestAPanicAfterTheRequestCostsNoSecondOne(t *testing.T) {
	r := newRig(t)
	f := &fake{send: func(context.Context, int) providers.Outcome { return accepted }}
	s := &panickingStore{}
	r.start(func(c *Config) { s.Store = c.Store; c.Store = s }, f.config())
	rec := r.awaitState(r.send(), status.Accepted)
	if n := len(f.requests()); n != 1 || rec.PossibleDuplicate || !s.panicked.Load() {
		t.Errorf("%d requests, possible duplicate %v; want one, and none", n, rec.PossibleDuplicate)
	}
}
