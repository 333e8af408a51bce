package worker

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// trigger is a breaker that opens soon.
func trigger(openFor time.Duration) func(*ProviderConfig) {
	return func(pc *ProviderConfig) {
		pc.Breaker = BreakerConfig{ConsecutiveFailures: 3, FailureRatio: 0.5, MinimumRequests: 20, OpenFor: openFor}
	}
}

func TestTheBreakerOpensSpendsNothingAndCloses(t *testing.T) {
	r := newRig(t)
	up := make(chan struct{}) // closed when the provider is up again
	f := &fake{send: func(context.Context, int) providers.Outcome {
		select {
		case <-up:
			return accepted
		default:
			return providers.Retry(providers.ReasonProviderError, 0, nil)
		}
	}}
	// Open for longer than it takes to look at them all: a probe is an attempt too.
	r.start(nil, f.config(trigger(5*time.Second), func(pc *ProviderConfig) {
		pc.Concurrency[tasks.Interactive] = 1 // so that exactly three requests fail
		pc.Retry.MaxAttempts = 4
	}))
	var ids []string
	for range 20 {
		ids = append(ids, r.send())
	}
	for _, id := range ids[3:] {
		rec := r.await(id, "waited for the breaker", func(rec status.Record) bool { return rec.Reason == string(ReasonBreakerOpen) })
		if rec.State != status.Deferred || rec.NextAttemptAt.IsZero() || len(rec.Attempts) != 0 {
			t.Errorf("record = %+v, want deferred without an attempt, until when", rec)
		}
	}
	eventually(t, func() bool {
		workers, err := Workers(t.Context(), r.rdb)
		return err == nil && len(workers) == 1 && workers[0].Breakers["unimedbh"].State != BreakerClosed
	}, func() string { return "Workers() never showed the open breaker" })

	close(up)
	for _, id := range ids {
		rec := r.awaitState(id, status.Accepted)
		for _, a := range rec.Attempts[:len(rec.Attempts)-1] {
			if a.Outcome != "retry_later" {
				t.Errorf("attempt %+v is none of the provider's", a)
			}
		}
	}
	eventually(t, func() bool {
		log := r.log.String()
		return strings.Contains(log, `"to":"open"`) && strings.Contains(log, `"to":"closed"`)
	}, func() string { return "opening and closing are not in the log:\n" + r.log.String() })
}

func TestAMessageExpiresOnTimeWhileTheBreakerIsOpen(t *testing.T) {
	r := newRig(t)
	f := always(providers.Retry(providers.ReasonProviderError, 0, nil))
	r.start(nil, f.config(trigger(time.Hour), func(pc *ProviderConfig) { pc.Retry.MaxAttempts = 100 }))
	for range 5 { // open it
		r.send()
	}
	eventually(t, func() bool { return len(f.requests()) >= 3 }, func() string { return "the breaker had nothing to open it" })
	before := len(f.requests())
	rec := r.awaitState(r.send(enqueue.ValidFor(1500*time.Millisecond)), status.Expired)
	// A whole second for the queue's clock, and slack for a busy machine; an
	// hour is what it would be without the cap.
	if late := rec.UpdatedAt.Sub(rec.NotAfter); late < 0 || late > 10*time.Second {
		t.Errorf("expired %s after not_after", late)
	}
	if n := len(f.requests()) - before; len(rec.Attempts) > 0 || n > 8 {
		t.Errorf("%d attempts, %d requests while the breaker was open", len(rec.Attempts), n)
	}
}

// TestWhatAnOutageLetExpireCanBeSentAgain takes those whom an open breaker kept waiting
// until it was too late from there to a code, as a campaign does.
func TestWhatAnOutageLetExpireCanBeSentAgain(t *testing.T) {
	r := newRig(t)
	f := always(providers.Retry(providers.ReasonProviderError, 0, nil))
	_, stop := r.start(nil, f.config(trigger(time.Hour), func(pc *ProviderConfig) { pc.Retry.MaxAttempts = 100 }))
	for range 5 { // open it
		r.send(enqueue.ValidFor(time.Hour))
	}
	eventually(t, func() bool { return len(f.requests()) >= 3 }, func() string { return "the breaker had nothing to open it" })
	people := map[string]string{}
	for n := range 20 {
		req := unimedbh.Request{Username: fmt.Sprintf("pessoa%d@example.com", n), Type: "EMAIL"}
		people[r.sendTo(req, enqueue.ValidFor(1500*time.Millisecond), enqueue.InLane(tasks.Bulk))] = req.Username
	}
	for id := range people {
		r.awaitState(id, status.Expired)
	}
	stop()

	r.start(nil, always(providers.AcceptedFor(0)).config())
	of := status.EndedFilter{States: []status.State{status.Expired}}
	again := map[string]string{}
	for row, err := range rows.FromStatus(t.Context(), r.store, r.keyring(), unimedbh.Definition(), of) {
		if err != nil {
			t.Fatal(err)
		}
		if got := row.Request.Recipient(); got != people[row.ReplayOf] || row.PossibleDuplicate {
			t.Fatalf("the row of %s is for %q, a possible duplicate: %v; want %q and no", row.ReplayOf, got, row.PossibleDuplicate, people[row.ReplayOf])
		}
		again[row.ReplayOf] = "again-" + row.ReplayOf
		as, errs := r.store.MarkResent(t.Context(), []status.Resend{{ID: row.ReplayOf, NewID: again[row.ReplayOf]}})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		r.sendTo(row.Request, enqueue.InLane(tasks.Bulk), enqueue.As(enqueue.Identity{ID: as[0], ReplayOf: row.ReplayOf}))
		if errs := r.store.DropEnded(t.Context(), "unimedbh", []string{row.ReplayOf}); errs[0] != nil {
			t.Fatal(errs[0])
		}
	}
	if len(again) != len(people) {
		t.Fatalf("%d were found again, want the %d that expired", len(again), len(people))
	}
	for old, id := range again {
		if rec := r.awaitState(id, status.Accepted); rec.ReplayOf != old || rec.PossibleDuplicate {
			t.Errorf("the new message is %+v, want it linked to %s", rec, old)
		}
		if rec := r.get(old); rec.State != status.Expired || rec.ReplayedAs != id {
			t.Errorf("the old message is %s, replayed as %q; want expired and %s", rec.State, rec.ReplayedAs, id)
		}
	}
	for m := range r.store.Ended(t.Context(), "unimedbh", of) {
		t.Errorf("%s is listed after it was sent again", m.ID)
	}
}

func TestAMessageThatNeedsNoRequestLeavesTheProbeToAnother(t *testing.T) {
	r := newRig(t)
	f := inTurn(providers.Retry(providers.ReasonProviderError, time.Minute, nil), accepted)
	w, _ := r.start(nil, f.config(func(pc *ProviderConfig) {
		pc.Concurrency[tasks.Interactive] = 1
		pc.Breaker = BreakerConfig{ConsecutiveFailures: 1, FailureRatio: 1, MinimumRequests: 1, OpenFor: 1500 * time.Millisecond}
	}))
	r.awaitState(r.send(), status.Deferred) // opens it
	b := w.handlers[0].breaker
	eventually(t, func() bool { return b.state() == BreakerHalfOpen }, func() string { return "the breaker never became half-open" })
	// Canceled, and still in the queue: it meets the half-open breaker first.
	over, err := r.client.Send(t.Context(), example, enqueue.At(time.Now().Add(time.Second)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.client.Cancel(t.Context(), over.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		return r.rdb.Exists(t.Context(), "asynq:{otpq:unimedbh:interactive}:t:"+over.ID).Val() == 0
	}, func() string { return "the canceled message was never worked on" })
	r.awaitState(r.send(), status.Accepted)
	if b.state() != BreakerClosed {
		t.Errorf("state = %s, want closed", b.state())
	}
}

func TestAnOpenBreakerTakesNoTokens(t *testing.T) {
	r := newRig(t)
	f := always(providers.Retry(providers.ReasonProviderError, time.Minute, nil))
	r.start(nil, f.config(trigger(time.Hour), func(pc *ProviderConfig) {
		pc.Breaker.ConsecutiveFailures = 1
		pc.RateLimit = RateLimit{Limit: 2, Period: 200 * time.Millisecond}
	}))
	r.awaitState(r.send(), status.Deferred)
	before := r.rdb.HGetAll(t.Context(), "otpq:limit:unimedbh").Val()
	for range 5 {
		r.await(r.send(), "waits for the breaker", func(rec status.Record) bool { return rec.Reason == string(ReasonBreakerOpen) })
	}
	if after := r.rdb.HGetAll(t.Context(), "otpq:limit:unimedbh").Val(); before["at"] == "" || !maps.Equal(before, after) {
		t.Errorf("the limit's state went from %v to %v while the breaker was open", before, after)
	}
}

func TestSlowOutagesTripTheBreaker(t *testing.T) {
	r := newRig(t)
	f := hanging()
	r.start(nil, f.config(trigger(time.Minute), func(pc *ProviderConfig) { pc.Timeout = 100 * time.Millisecond }))
	var ids []string
	for range 30 {
		ids = append(ids, r.send())
	}
	for _, id := range ids {
		r.await(id, "was deferred", func(rec status.Record) bool { return rec.State == status.Deferred })
	}
	if n := len(f.requests()); n > 3+8 { // three to open it, eight slots already at it
		t.Errorf("%d requests to a provider that only times out", n)
	}
}

func TestABreakerHearsOnlyOfTheProvidersHealth(t *testing.T) {
	for _, c := range []struct {
		outcome providers.Outcome
		opens   bool
	}{
		{providers.AcceptedFor(0), false},
		{providers.Reject(providers.ReasonInvalidRequest, nil), false},
		{providers.Reject(providers.ReasonRecipientUnknown, nil), false},
		{providers.Retry(providers.ReasonRateLimited, 0, nil), false},
		{providers.Retry(providers.ReasonCredentialsRenewed, 0, nil), false},
		{providers.Retry(ReasonStalled, 0, nil), false},
		{providers.Retry(providers.ReasonProviderError, 0, nil), true},
		{providers.Retry(providers.ReasonUnavailable, 0, nil), true},
		{providers.Retry(providers.ReasonConnection, 0, nil), true},
		{providers.Retry(providers.ReasonUnexpectedStatus, 0, nil), true},
		{providers.Retry(providers.ReasonNotSent, 0, nil), true},
		{providers.Unknown(providers.ReasonTimeout, nil), true},
		{providers.Unknown(providers.ReasonUnclassified, nil), true},
		{providers.Outcome{}, true},
	} {
		t.Run(fmt.Sprint(c.outcome.Kind, " ", c.outcome.Reason), func(t *testing.T) {
			b := newBreaker("p", BreakerConfig{ConsecutiveFailures: 5, FailureRatio: 0.5, MinimumRequests: 20, OpenFor: time.Minute}, time.Second, nil)
			report(t, b, 30, c.outcome)
			if got := b.state() == BreakerOpen; got != c.opens {
				t.Errorf("open after 30 of them: %v, want %v", got, c.opens)
			}
		})
	}
	t.Run("refused credentials open it at once", func(t *testing.T) {
		b := newBreaker("p", BreakerConfig{ConsecutiveFailures: 5, FailureRatio: 0.5, MinimumRequests: 20, OpenFor: time.Minute}, time.Second, nil)
		report(t, b, 1, providers.Retry(providers.ReasonCredentials, 0, nil))
		if b.state() != BreakerOpen {
			t.Errorf("state = %s, want open", b.state())
		}
	})
}

// report makes n requests with one outcome, as long as the breaker allows them.
func report(t *testing.T, b *breaker, n int, o providers.Outcome) {
	t.Helper()
	for range n {
		p, _, ok := b.allow(time.Now())
		if !ok {
			return
		}
		p.report(o)
	}
}

func TestBreakerOverTime(t *testing.T) {
	failure := providers.Retry(providers.ReasonProviderError, 0, nil)
	cfg := BreakerConfig{ConsecutiveFailures: 5, FailureRatio: 0.5, MinimumRequests: 20, OpenFor: 30 * time.Second}

	t.Run("failures in a row count though a minute lies between them", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker("p", cfg, time.Second, nil)
			for range 5 {
				report(t, b, 1, failure)
				<-time.After(10 * time.Minute) // on synctest's clock: no time passes
			}
			if b.openUntil.Load() == 0 {
				t.Error("five failures in a row, ten minutes apart, did not open it")
			}
		})
	})
	t.Run("calls as long as the timeout are counted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const timeout = 10 * time.Second
			wide := cfg
			wide.ConsecutiveFailures = 1000 // leave it to the ratio
			b := newBreaker("p", wide, timeout, nil)
			for range 40 {
				p, _, ok := b.allow(time.Now())
				if !ok {
					return // opened, as it should
				}
				time.AfterFunc(timeout, func() { p.report(failure) })
				<-time.After(timeout / 8) // on synctest's clock: no time passes
			}
			t.Error("40 calls that timed out did not open it")
		})
	})
	t.Run("half-open lets one probe through and a success closes it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker("p", cfg, time.Second, nil)
			report(t, b, 5, failure)
			_, until, ok := b.allow(time.Now())
			if left := time.Until(until); ok || left < cfg.OpenFor || left > cfg.OpenFor*11/10 {
				t.Fatalf("allow() while open = %v, wait %s; want no, about %s", ok, left, cfg.OpenFor)
			}
			<-time.After(time.Until(until) + time.Millisecond) // on synctest's clock: no time passes
			probe, _, ok := b.allow(time.Now())
			if !ok || b.state() != BreakerHalfOpen {
				t.Fatalf("no probe after the wait; state %s", b.state())
			}
			if _, _, second := b.allow(time.Now()); second {
				t.Error("a second request was let through beside the probe")
			}
			probe.report(accepted)
			if b.state() != BreakerClosed {
				t.Errorf("state after a good probe = %s, want closed", b.state())
			}
			report(t, b, 4, failure)
			if b.state() != BreakerClosed {
				t.Error("failures from before it opened still count")
			}
		})
	})
	t.Run("a probe given back unused leaves room for another", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newBreaker("p", cfg, time.Second, nil)
			report(t, b, 5, failure)
			<-time.After(time.Minute) // on synctest's clock: no time passes
			for range 3 {
				probe, _, ok := b.allow(time.Now())
				if !ok {
					t.Fatal("the breaker is wedged half-open")
				}
				probe.release()
			}
			probe, _, _ := b.allow(time.Now())
			probe.report(failure)
			if b.state() != BreakerOpen {
				t.Errorf("state after a failed probe = %s, want open", b.state())
			}
		})
	})
	t.Run("a log that does not read holds nothing up", func(_ *testing.T) {
		full := make(chan breakerChange)
		b := newBreaker("p", cfg, time.Second, full)
		report(t, b, 5, failure) // would hang here
	})
}
