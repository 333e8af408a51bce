package worker

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/otpq/otpq/providers"
)

// BreakerConfig says when a provider is left alone.
type BreakerConfig struct {
	ConsecutiveFailures int
	FailureRatio        float64
	MinimumRequests     int
	OpenFor             time.Duration
}

// Breaker states as they are logged, counted and shown.
const (
	BreakerClosed   = "closed"
	BreakerHalfOpen = "half-open"
	BreakerOpen     = "open"
)

// BreakerStates lists the states a breaker can be in.
func BreakerStates() []string { return []string{BreakerClosed, BreakerHalfOpen, BreakerOpen} }

// errNeutral marks an outcome that says nothing about the provider's health.
var errNeutral = errors.New("neutral")

// breaker is one provider's circuit breaker in this process. Both lanes share
// it. It wraps gobreaker to repair three things: calls longer than gobreaker's
// interval are never counted, consecutive failures are forgotten at each
// interval, and there is no way to open it at once.
type breaker struct {
	cb *gobreaker.TwoStepCircuitBreaker[struct{}]
	// failures counts consecutive failures with no decay: at a message a
	// minute, five failures in a row are still an outage.
	failures atomic.Int32
	// stop is set while a refusal of our credentials is reported.
	stop      atomic.Bool
	openUntil atomic.Int64 // Unix nanoseconds
	openFor   time.Duration
	changes   chan<- breakerChange
}

// breakerChange is one opening or closing, for the log.
type breakerChange struct {
	provider, from, to string
	at                 time.Time
}

// newBreaker makes a breaker for a provider whose requests last up to timeout.
// Its changes go to changes, which should have room: what finds none is dropped.
func newBreaker(name string, cfg BreakerConfig, timeout time.Duration, changes chan<- breakerChange) *breaker {
	b := &breaker{
		// Each worker waits a little differently, so that a fleet does not
		// probe a provider that is getting up all at once.
		openFor: cfg.OpenFor + rand.N(cfg.OpenFor/10+1),
		changes: changes,
	}
	// Three timeouts at least, or a provider that only ever times out has
	// no call counted, and never trips it.
	interval := max(time.Minute, 3*timeout)
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         name,
		MaxRequests:  1,
		Interval:     interval,
		BucketPeriod: interval / 10,
		Timeout:      b.openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			if b.stop.Load() || int(b.failures.Load()) >= cfg.ConsecutiveFailures {
				return true
			}
			// Counts.Requests includes calls in flight and neutral ones.
			done := c.TotalFailures + c.TotalSuccesses
			return int(done) >= cfg.MinimumRequests && float64(c.TotalFailures)/float64(done) >= cfg.FailureRatio
		},
		IsExcluded:    func(err error) bool { return errors.Is(err, errNeutral) },
		OnStateChange: b.changed,
	})
	return b
}

// changed runs under gobreaker's lock: it may neither block nor ask the breaker.
func (b *breaker) changed(provider string, from, to gobreaker.State) {
	now := time.Now()
	if to == gobreaker.StateOpen {
		b.openUntil.Store(now.Add(b.openFor).UnixNano())
	}
	if to == gobreaker.StateClosed {
		b.failures.Store(0)
	}
	select {
	case b.changes <- breakerChange{provider: provider, from: from.String(), to: to.String(), at: now}:
	default: // the log hangs; a provider's requests do not wait for it
	}
}

// permit is the right to make one request. Its report must be called exactly
// once: a half-open breaker whose probe never reports stays so for ever.
type permit struct {
	b    *breaker
	done func(error)
}

// allow asks for a permit. ok is false while the provider is to be left alone;
// then until is when to ask again.
func (b *breaker) allow(now time.Time) (p permit, until time.Time, ok bool) {
	done, err := b.cb.Allow()
	switch {
	case err == nil:
		return permit{b, done}, time.Time{}, true
	case errors.Is(err, gobreaker.ErrTooManyRequests):
		return permit{}, now.Add(time.Second), false // a probe is on its way
	default:
		return permit{}, time.Unix(0, b.openUntil.Load()), false
	}
}

// open reports whether the provider is to be left alone, and until when. It
// takes no permit, and a half-open breaker is not open.
func (b *breaker) open() (until time.Time, open bool) {
	if b.cb.State() != gobreaker.StateOpen {
		return time.Time{}, false
	}
	return time.Unix(0, b.openUntil.Load()), true
}

// release gives the permit back unused.
func (p permit) release() { p.done(errNeutral) }

// report tells what became of the request.
func (p permit) report(o providers.Outcome) {
	switch breakerVerdict(o) {
	case healthy:
		p.b.failures.Store(0)
		p.done(nil)
	case sick:
		p.b.failures.Add(1)
		p.done(errors.New(string(o.Reason)))
	case locked:
		p.b.stop.Store(true)
		p.done(errors.New(string(o.Reason)))
		p.b.stop.Store(false)
	case neutral:
		p.done(errNeutral)
	}
}

// state is closed, half-open or open, now.
func (b *breaker) state() string { return b.cb.State().String() }

// health is what an outcome says about the provider.
type health int

const (
	neutral health = iota // nothing
	healthy
	sick
	locked // it works, but not for our credentials: leave it alone at once
)

// breakerVerdict says what an outcome means for the breaker. A refusal of one
// recipient and a full rate limit are the provider at work, and so no failure;
// they are no proof of health either, because a provider can refuse everybody.
func breakerVerdict(o providers.Outcome) health {
	switch o.Kind {
	case providers.Accepted:
		return healthy
	case providers.Rejected:
		return neutral
	case providers.RetryLater:
		switch o.Reason {
		case providers.ReasonCredentials:
			return locked
		case providers.ReasonRateLimited, providers.ReasonCredentialsRenewed, ReasonStalled:
			return neutral
		default:
			return sick
		}
	case providers.Ambiguous:
		return sick
	}
	return sick
}
