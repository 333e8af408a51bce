package worker

import (
	"math/rand/v2"
	"time"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
)

// classify turns the outcome of the claimed attempt into a verdict:
//
//	accepted                                accepted
//	rejected                                rejected
//	retry later, our credentials or a 429   deferred, at no cost
//	retry later, budget left                deferred
//	retry later, budget used up             exhausted
//	ambiguous, the first, resend_once       deferred
//	ambiguous, otherwise                    unknown
func (p *pipeline) classify(a *attempt, o providers.Outcome) *verdict {
	v := &verdict{write: writeFinish, reason: o.Reason, outcome: o, spent: !free(o), err: o.Err}
	budget := p.cfg.Retry.MaxAttempts
	if a.message.MaxAttempts > 0 {
		budget = a.message.MaxAttempts
	}
	left := budget - a.claimed.Spent
	if v.spent {
		left--
	}
	switch o.Kind {
	case providers.Accepted:
		v.state = status.Accepted
		return v
	case providers.Rejected:
		v.state = status.Rejected
		return v
	case providers.RetryLater:
		if left <= 0 {
			v.state = status.Exhausted
			return v
		}
	case providers.Ambiguous:
		if p.cfg.Retry.StopAmbiguous || a.claimed.Ambiguous > 0 || left <= 0 {
			v.state = status.Unknown
			return v
		}
	}
	v.state = status.Deferred
	now := p.now()
	backoff := p.cfg.Retry.backoff(a.claimed.Attempt)
	if o.Reason == ReasonWorkerLost {
		backoff = 0 // it has waited for that to be noticed
	}
	v.next = retryAt(now, backoff, o.RetryAfter, a.message.NotAfter)
	return v
}

// free reports whether an attempt costs nothing of the budget: the provider
// refused our credentials or our rate, or nothing was asked of it at all. None of
// these says anything about the message.
func free(o providers.Outcome) bool {
	if o.Kind != providers.RetryLater {
		return false
	}
	switch o.Reason {
	case providers.ReasonCredentials, providers.ReasonCredentialsRenewed, providers.ReasonRateLimited, ReasonStalled:
		return true
	}
	return false
}

// deferral tells asynq to run the task again. asynq stores its text in Redis
// and shows it in dashboards, so it is a reason and nothing else.
type deferral struct {
	reason providers.Reason
	next   time.Time
	failed bool // counts as a failure in asynq's own statistics
}

// Error implements error.
func (d *deferral) Error() string { return string(d.reason) }

// settle turns a verdict into asynq's terms: a message at its end is done,
// whichever end it is, because dead letters are kept in the status store.
func settle(v *verdict) error {
	switch v.state {
	case status.Accepted, status.Rejected, status.Exhausted, status.Unknown, status.Expired, status.Canceled:
		return nil
	case status.Queued, status.Sending, status.Deferred:
	}
	return &deferral{reason: v.reason, next: ceilSecond(v.next), failed: v.write == writeFinish}
}

// spread adds up to over to t, so that messages that wait for the same thing do
// not all come back in the same moment.
func spread(t time.Time, over time.Duration) time.Time {
	if over <= 0 {
		return t
	}
	return t.Add(rand.N(over))
}
