package campaign

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/status"
)

const (
	// A window that adapts begins with the first and stays within the others.
	firstWindow = 200
	leastWindow = 100
	mostWindow  = 5000

	// sample is of how many last results the share of failures is taken, once there
	// are enough.
	sample     = 200
	enough     = 50
	deferredBy = "breaker_open" // the worker's reason of a message that waits for a breaker

	// rampFrom is the part of its pace at which a campaign goes on after a pause of
	// its own; it doubles at each step.
	rampFrom = 0.1
)

// tempo is how long a campaign holds back by itself.
type tempo struct {
	breaker  time.Duration // between two looks whether the provider is back
	failures time.Duration // after too many failures; doubled each time,
	longest  time.Duration // up to this
	ramp     time.Duration // how long a step of the ramp takes
}

var usualTempo = tempo{breaker: 2 * time.Second, failures: 30 * time.Second, longest: 15 * time.Minute, ramp: 10 * time.Second}

// afterFailures is how long it pauses when it did so that many times in a row.
func (t tempo) afterFailures(holds int) time.Duration {
	return min(t.failures<<min(holds, 10), t.longest)
}

// gentle decides how many rows may be fed. It is for one goroutine.
type gentle struct {
	tempo  tempo
	window float64
	// ended are those since second, and drained how many there were in each of the
	// last seconds.
	second  time.Time
	noted   time.Time // when a look was last taken in
	ended   int
	drained float64
	// allowance is how many rows the rate lets through, as of last.
	allowance float64
	last      time.Time

	recent     [sample]bool // true: failed
	results    int          // how many there were since the last pause
	failures   int          // of those in recent
	brokenSeen bool         // a message waits for a breaker
}

// note takes in what a look has shown.
func (g *gentle) note(now time.Time, results []result) {
	for _, r := range results {
		if r.state == string(status.Deferred) && r.reason == deferredBy {
			g.brokenSeen = true
		}
		// What is gone was passed over when its turn came, or nobody knows about it.
		if !r.ended() || r.final == "gone" || r.state == string(status.Canceled) {
			continue
		}
		g.ended++
		place := g.results % sample
		if g.results >= sample && g.recent[place] {
			g.failures--
		}
		g.recent[place] = r.state != string(status.Accepted)
		if g.recent[place] {
			g.failures++
		}
		g.results++
	}
	if g.second.IsZero() {
		g.second = now
	}
	g.noted = now
	if passed := now.Sub(g.second); passed >= time.Second {
		rate := float64(g.ended) / passed.Seconds()
		if g.drained == 0 { // nothing that it could be the mean with
			g.drained = rate
		}
		g.drained += (rate - g.drained) / 2
		g.second, g.ended = now, 0
	}
}

// pace is how many rows end in a second, as it is noted for others. Of the first second
// half is enough.
func (g *gentle) pace() string {
	rate := g.drained
	if passed := g.noted.Sub(g.second); rate == 0 && passed >= time.Second/2 {
		rate = float64(g.ended) / passed.Seconds()
	}
	return strconv.FormatFloat(math.Round(rate*10)/10, 'f', -1, 64)
}

// failing reports whether too many of the last results are failures.
func (g *gentle) failing(above float64) bool {
	n := min(g.results, sample)
	return n >= enough && above < 1 && float64(g.failures) > above*float64(n)
}

func (g *gentle) forget() { g.results, g.failures, g.brokenSeen = 0, 0, false }

// room is how many of the rows that are left may be fed now, when so many are in flight
// and so many of those at the provider.
func (g *gentle) room(now time.Time, m *meta, inFlight, sending, left int) int {
	part := g.ramp(now, m.ramp)
	allowed := math.MaxInt
	if m.Rate > 0 {
		if g.last.IsZero() {
			g.last = now
		}
		g.allowance += now.Sub(g.last).Seconds() * m.Rate * part
		g.last = now
		// No burst: what could not be fed in a tenth of a second is not made up for.
		g.allowance = min(g.allowance, max(m.Rate*part/10, 1))
		allowed = int(g.allowance)
	}
	window := float64(m.Window)
	if m.Window == 0 {
		switch {
		case g.window == 0:
			g.window = firstWindow
		case float64(inFlight-sending) < g.window/4 && left > 0 && allowed >= int(g.window*part)-inFlight:
			g.window = min(g.window*2, mostWindow) // the workers wait for more, and it is not the rate
		case g.drained > 0 && g.window > 2*g.drained:
			g.window = max(g.drained, leastWindow)
		}
		window = g.window
	}
	free := min(int(max(window*part, 1))-inFlight, allowed)
	return max(0, min(free, left))
}

// spend notes that rows were fed.
func (g *gentle) spend(n int) { g.allowance -= float64(n) }

// ramp is the part of its pace that a campaign has which began to run again at a time.
func (g *gentle) ramp(now, since time.Time) float64 {
	if since.IsZero() {
		return 1
	}
	passed := max(0, now.Sub(since)) // since may be of a clock that is ahead
	return min(1, rampFrom*math.Exp2(passed.Seconds()/g.tempo.ramp.Seconds()))
}

// decide has the campaign hold back, or go on.
func (f *feeder) decide(ctx context.Context) error {
	g, m, now := &f.gentle, f.m, f.c.now()
	due := !m.Until.IsZero() && !now.Before(m.Until)
	switch {
	case m.State == Running && m.Reason == "":
		if until, quiet, err := m.QuietHours.at(now); err != nil {
			return err
		} else if quiet {
			return f.hold(ctx, Running, ReasonQuietHours, until)
		}
		if g.brokenSeen {
			return f.hold(ctx, Paused, ReasonBreakerOpen, now.Add(g.tempo.breaker))
		}
		if g.failing(m.PauseAbove) {
			return f.hold(ctx, Paused, ReasonFailures, now.Add(g.tempo.afterFailures(m.holds)), "holds", m.holds+1)
		}
		if m.holds > 0 && g.ramp(now, m.ramp) == 1 && g.results >= enough {
			return f.hold(ctx, Running, "", time.Time{}, "holds", 0)
		}
	case m.State == Running && m.Reason == ReasonQuietHours && due:
		return f.hold(ctx, Running, "", time.Time{})
	case m.State == Paused && m.Reason == ReasonBreakerOpen && due:
		if f.flight.waitsFor(deferredBy) {
			return f.hold(ctx, Paused, ReasonBreakerOpen, now.Add(g.tempo.breaker))
		}
		return f.hold(ctx, Running, "", time.Time{}, "ramp", now.UnixMilli())
	case m.State == Paused && m.Reason == ReasonFailures && due:
		return f.hold(ctx, Running, "", time.Time{}, "ramp", now.UnixMilli())
	}
	return nil
}

// hold notes what the campaign does from now on, unless somebody has decided otherwise.
func (f *feeder) hold(ctx context.Context, to State, reason string, until time.Time, more ...any) error {
	ms := ""
	if !until.IsZero() {
		ms = strconv.FormatInt(until.UnixMilli(), 10)
	}
	args := append([]any{f.token, lease.Milliseconds(), string(f.m.State), f.m.Reason, string(to), reason, ms}, more...)
	err := holdScript.Run(ctx, f.c.rdb, []string{campaignKey(f.id), leaseKey(f.id)}, args...).Err()
	if err != nil {
		return f.leaseError("pause campaign", err)
	}
	if f.m.State != to || f.m.Reason != reason {
		f.gentle.forget()
	}
	// Before anything is fed: that it is to hold back counts from now on.
	return f.lookAtCampaign(ctx)
}

// leaseError is err, or [ErrFed] when a script answered that the lease is another's.
func (f *feeder) leaseError(doing string, err error) error {
	if errors.Is(err, redis.Nil) {
		return ErrFed
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// sending is how many messages are at the provider, as far as is known.
func (q *flight) sending() (n int) {
	for _, m := range q.queue[q.head:] {
		if m.state == string(status.Sending) {
			n++
		}
	}
	return n
}

// waitsFor reports whether a message is deferred for a reason.
func (q *flight) waitsFor(reason string) bool {
	for _, m := range q.queue[q.head:] {
		if m.state == string(status.Deferred) && m.reason == reason {
			return true
		}
	}
	return false
}
