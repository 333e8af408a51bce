package worker

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
)

// claims counts the claims of this process, for their tokens. A value of more than
// 64 bytes, as two UUIDs are, would have Redis keep the record in another form,
// which takes more memory and time.
var claims atomic.Int64

// claim takes the right to make the attempt, which only one execution has. An
// attempt that a dead worker left behind is ended here as what it is: maybe sent.
func (p *pipeline) claim(ctx context.Context, a *attempt) *verdict {
	a.token = p.worker + "/" + strconv.FormatInt(claims.Add(1), 36)
	claim := status.Claim{Seed: p.seed(a), Token: a.token, Now: p.now(), AbandonedAfter: abandonedAfter}
	c, err := p.store.Claim(ctx, claim)
	if err != nil {
		unheard := *a
		p.results.Settle(func(ctx context.Context) error { return p.letGo(ctx, unheard, claim.Now) })
		return again(ReasonRedis, p.now().Add(time.Second), err)
	}
	a.claimed = c
	if c.Result == status.ClaimedNow || c.Result == status.ClaimAbandoned {
		if made, ok := p.memory.recall(a.message.ID, c.Attempt); ok {
			// Redis has forgotten what became of this attempt.
			a.sentAt, a.took, a.recalled = made.sentAt, made.took, true
			return p.classify(a, made.outcome)
		}
	}
	switch c.Result {
	case status.ClaimedNow:
		return nil
	case status.ClaimAbandoned:
		a.sentAt = c.StartedAt
		return p.classify(a, providers.Unknown(ReasonWorkerLost, nil))
	case status.ClaimBusy:
		return again(ReasonBusy, c.BusyUntil, nil)
	case status.ClaimOver:
		return &verdict{write: writeNothing, state: c.State}
	}
	return again(ReasonBusy, p.now().Add(time.Second), fmt.Errorf("claim answered %q", c.Result))
}

// letGo ends a claim that Redis did not answer, if it was taken all the same. It
// would hold up the message until it counts as a dead worker's, and the message
// would then be maybe sent; but no request is ever made under it.
func (p *pipeline) letGo(ctx context.Context, a attempt, at time.Time) error {
	if p.now().Sub(at) > resultsTime {
		return nil
	}
	rec, err := p.store.Get(ctx, a.message.ID)
	if err != nil || rec.State != status.Sending || len(rec.Attempts) == 0 {
		return unreachable(err)
	}
	held := rec.Attempts[len(rec.Attempts)-1]
	if !held.StartedAt.Equal(at.Truncate(time.Millisecond)) {
		return nil // another's, or one that took over what a dead worker began: maybe sent
	}
	a.claimed, a.sentAt = status.Claimed{Result: status.ClaimedNow, Attempt: held.Number}, held.StartedAt
	// Refused when the claim is another's after all.
	return unreachable(p.write(ctx, &a, p.classify(&a, providers.Retry(ReasonStalled, 0, nil))))
}

// unreachable keeps an error that means "try again".
func unreachable(err error) error {
	if status.IsUnreachable(err) {
		return err
	}
	return nil
}
