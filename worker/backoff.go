package worker

import (
	"math/rand/v2"
	"time"
)

// Retry says how a provider's failures are retried.
type Retry struct {
	MaxAttempts   int
	Initial, Max  time.Duration
	StopAmbiguous bool // on_ambiguous: stop; otherwise resend_once
}

// backoff is the wait after the n-th failed attempt, n from 1: exponential with
// full jitter, because messages that fail together must not come back together.
func (r Retry) backoff(n int) time.Duration {
	ceiling := r.Max
	// Past 2^30 the shift would overflow; Max is reached long before.
	if n = min(n, 30); r.Initial<<(n-1) > 0 {
		ceiling = min(r.Max, r.Initial<<(n-1))
	}
	if ceiling <= 0 {
		return 0
	}
	return rand.N(ceiling)
}

// retryAt is when an attempt after a wait of delay may start, in whole seconds
// rounded up, because the queue rounds due times down. A wait that would end too
// late is cut so that a last attempt still fits before notAfter, unless the
// provider itself asked for it; when none fits, retryAt is notAfter, when the
// message expires.
func retryAt(now time.Time, delay, hint time.Duration, notAfter time.Time) time.Time {
	next := ceilSecond(now.Add(max(delay, hint)))
	if next.Before(notAfter) {
		return next
	}
	last := notAfter.Add(-time.Second).Truncate(time.Second)
	if last.After(now.Add(hint)) {
		return last
	}
	return notAfter
}

// ceilSecond rounds up to a whole second.
func ceilSecond(t time.Time) time.Time {
	return t.Add(time.Second - time.Nanosecond).Truncate(time.Second)
}
