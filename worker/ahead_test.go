package worker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// gate is a hook above the worker's own. It lets asynq have one task of each lane,
// so that what the worker takes from Redis besides stays in its hand.
type gate struct {
	passHook
	mu     sync.Mutex
	passed map[any]bool // by the key of the queue
	open   chan struct{}
}

func newGate() *gate { return &gate{passed: map[any]bool{}, open: make(chan struct{})} }

func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		args := cmd.Args()
		if len(args) < 4 || args[0] != "evalsha" || args[2] != 4 {
			return next(ctx, cmd)
		}
		queue, _ := args[3].(string)
		if !strings.HasSuffix(queue, "}:pending") {
			return next(ctx, cmd)
		}
		g.mu.Lock()
		passed := g.passed[queue]
		g.mu.Unlock()
		if passed {
			<-g.open
		}
		err := next(ctx, cmd)
		if err == nil {
			g.mu.Lock()
			g.passed[queue] = true
			g.mu.Unlock()
		}
		return err
	}
}

// laneKey is a key of asynq's for unimedbh's interactive lane.
func laneKey(name string) string {
	return "asynq:{" + tasks.QueueName("unimedbh", tasks.Interactive) + "}:" + name
}

// list is what Redis has in one of asynq's lists, the next one first.
func (r *rig) list(name string) []string {
	r.t.Helper()
	ids, err := r.rdb.LRange(r.t.Context(), laneKey(name), 0, -1).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Reverse(ids)
	return ids
}

// TestWhatWasTakenAheadIsQueuedAgainAtShutdown stops a worker that has taken more
// than it has begun: while it still finishes its own, another could have the rest.
func TestWhatWasTakenAheadIsQueuedAgainAtShutdown(t *testing.T) {
	r := newRig(t)
	ids := r.sendMany(8)
	release := make(chan struct{})
	f := &fake{send: func(context.Context, int) providers.Outcome { <-release; return accepted }}
	rdb, g := r.newClient(), newGate()
	rdb.AddHook(g)
	_, stop := r.startOn(rdb, nil, nil, f.config())
	eventually(t, func() bool { return len(f.requests()) == 1 && len(r.list("active")) == len(ids) },
		func() string { return fmt.Sprintf("%d are taken, want all %d", len(r.list("active")), len(ids)) })
	down := make(chan struct{})
	go func() { defer close(down); stop() }()
	eventually(t, func() bool { return len(r.list("pending")) == len(ids)-1 }, func() string { return "the rest never went back" })
	if diff := cmp.Diff(ids[1:], r.list("pending")); diff != "" {
		t.Errorf("the queue (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ids[:1], r.list("active")); diff != "" {
		t.Errorf("what is active (-want +got):\n%s", diff)
	}
	for _, id := range ids[1:] {
		fields := r.rdb.HGetAll(t.Context(), laneKey("t:"+id)).Val()
		if fields["state"] != "pending" || fields["otpq_holder"] != "" {
			t.Errorf("a task that went back is %s and held by %q", fields["state"], fields["otpq_holder"])
		}
		if err := r.rdb.ZScore(t.Context(), laneKey("lease"), id).Err(); err == nil {
			t.Error("a task that went back still has a lease")
		}
	}
	other := always(accepted)
	r.start(nil, other.config())
	for _, id := range ids[1:] {
		r.awaitState(id, status.Accepted)
	}
	close(release)
	close(g.open)
	<-down
	r.awaitState(ids[0], status.Accepted)
	if first, rest := len(f.requests()), len(other.requests()); first != 1 || rest != len(ids)-1 {
		t.Errorf("%d requests by the worker that stopped and %d by the other, want 1 and %d", first, rest, len(ids)-1)
	}
}

// TestWhatAKilledWorkerHadTakenAheadGoesOn kills one that has taken more than it
// has begun. What it had not begun is not maybe sent.
func TestWhatAKilledWorkerHadTakenAheadGoesOn(t *testing.T) {
	r := newRig(t)
	d := newDesk(t, nil)
	ids := r.sendMany(8)
	victim := r.startProcess(d.URL, func(s *processSettings) { s.OneTask = true })
	r.awaitState(ids[0], status.Accepted)
	eventually(t, func() bool { return cmp.Equal(r.list("active"), ids[1:]) },
		func() string { return fmt.Sprintf("%v are taken, want %v", r.list("active"), ids[1:]) })
	r.startProcess(d.URL)
	victim.kill()
	killed := time.Now()
	for i, id := range ids {
		rec := r.awaitState(id, status.Accepted)
		if n := len(d.requests(person(i))); n != 1 || rec.PossibleDuplicate || len(rec.Attempts) != 1 {
			t.Errorf("message %d: %d requests, record %+v; want one, for sure", i, n, rec)
		}
	}
	// Seven seconds here; the rest is for machines that are busy.
	if took := time.Since(killed); took > 15*time.Second {
		t.Errorf("all went on after %s, want ten seconds", took)
	}
	r.awaitEmptyQueues()
}

// TestNothingWaitsBehindASlowCall has most slots of a lane, or all, taken by calls
// that do not end.
func TestNothingWaitsBehindASlowCall(t *testing.T) {
	const slots, messages = 10, 30
	for hung, what := range map[int]string{slots - 1: "one slot is left", slots: "no slot is left, but at another worker"} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			release := make(chan struct{})
			slow := &fake{send: func(_ context.Context, n int) providers.Outcome {
				if n <= hung {
					<-release
				}
				return accepted
			}}
			patient := func(pc *ProviderConfig) { pc.Concurrency[tasks.Interactive], pc.Timeout = slots, 15*time.Second }
			ids := r.sendMany(messages)
			r.start(nil, slow.config(patient))
			t.Cleanup(func() { close(release) }) // before the worker's own, which waits for them
			eventually(t, func() bool { return len(slow.requests()) >= hung }, func() string { return "the slots were never taken" })
			if hung == slots {
				r.start(nil, always(accepted).config(patient))
			}
			eventually(t, func() bool {
				done := 0
				for _, id := range ids {
					if r.get(id).State == status.Accepted {
						done++
					}
				}
				return done == messages-hung && len(r.list("active")) == hung
			}, func() string {
				return fmt.Sprintf("messages wait behind calls that hang: %d tasks are taken, want %d", len(r.list("active")), hung)
			})
		})
	}
}

// TestWhatIsTakenWaitsForNoBreakerAndNoLimit has more messages in hand than may be
// sent: they are put off, and hold no slot.
func TestWhatIsTakenWaitsForNoBreakerAndNoLimit(t *testing.T) {
	for what, c := range map[string]struct {
		outcome providers.Outcome
		change  func(*ProviderConfig)
		reason  providers.Reason
	}{
		"an open breaker": {
			providers.Retry(providers.ReasonProviderError, 0, nil),
			func(pc *ProviderConfig) { pc.Breaker.ConsecutiveFailures, pc.Breaker.OpenFor = 1, 10*time.Minute }, ReasonBreakerOpen,
		},
		"a full limit": {
			accepted,
			func(pc *ProviderConfig) { pc.RateLimit = RateLimit{Limit: 1, Period: 10 * time.Minute} }, ReasonRateLimit,
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			f := always(c.outcome)
			ids := r.sendMany(40)
			r.start(nil, f.config(c.change))
			put := func() int {
				n := 0
				for _, id := range ids {
					if rec := r.get(id); rec.State == status.Deferred && rec.Reason == string(c.reason) {
						n++
					}
				}
				return n
			}
			// All but those that were under way when the breaker opened, or that the
			// limit let through.
			eventually(t, func() bool {
				return put() >= len(ids)-8 && len(r.list("active")) == 0 && len(r.list("pending")) == 0
			}, func() string {
				return fmt.Sprintf("%d of %d were put off, %d are in hand", put(), len(ids), len(r.list("active")))
			})
		})
	}
}
