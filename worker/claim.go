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

// unclaimPause is between two tries to take back a claim.
const unclaimPause = 50 * time.Millisecond

// claim takes the right to make the attempt, which only one execution has. An
// attempt that a dead worker left behind is ended here as what it is: maybe sent.
func (p *pipeline) claim(ctx context.Context, a *attempt) *verdict {
	c, err := p.claimed(ctx, a)
	if err != nil {
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

// claimed returns the claim that came with the task, or asks for one.
func (p *pipeline) claimed(ctx context.Context, a *attempt) (status.Claimed, error) {
	first := a.first
	a.first = ""
	claim := status.Claim{Token: first, Now: p.now(), AbandonedAfter: abandonedAfter}
	switch {
	case first == "":
		claim.Token = p.newToken()
	case claim.Now.Sub(a.firstAsked) < freshClaim:
		a.token = first
		return status.Claimed{Result: status.ClaimedNow, Attempt: 1}, nil
	}
	a.token, claim.Seed = claim.Token, p.seed(a)
	c, err := p.store.Claim(ctx, claim)
	if err != nil {
		lost := *a
		p.results.Settle(func(ctx context.Context) error {
			if first != "" {
				if err := p.store.Unclaim(ctx, lost.message.ID, p.now(), first); err != nil {
					return err
				}
			}
			return p.letGo(ctx, lost, claim.Now)
		})
	}
	return c, err
}

// newToken names an execution for its claim.
func (p *pipeline) newToken() string { return p.worker + "/" + strconv.FormatInt(claims.Add(1), 36) }

// dropClaim takes back the claim that came with the task when the claim step was never
// reached. When Redis is away that is done later, and so is all else: v gives way to a
// verdict that leaves the record alone.
func (p *pipeline) dropClaim(ctx context.Context, a *attempt, v *verdict) *verdict {
	if a.first == "" {
		return v
	}
	token := a.first
	a.first = ""
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTry)
	defer cancel()
	err := p.unclaim(short, a.messageID, token)
	if err == nil {
		return v
	}
	asked := p.now()
	p.results.Settle(func(ctx context.Context) error {
		if p.now().Sub(asked) > resultsTime {
			return nil
		}
		return p.store.Unclaim(ctx, a.messageID, p.now(), token)
	})
	return instead(v, again(ReasonRedis, p.now().Add(time.Second), err))
}

// unclaim tries to take back a claim that came with a task until it is, or ctx ends.
func (p *pipeline) unclaim(ctx context.Context, id, token string) error {
	for {
		err := p.store.Unclaim(ctx, id, p.now(), token)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(unclaimPause):
		case <-ctx.Done():
			return err
		}
	}
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
