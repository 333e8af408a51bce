package worker

import (
	"context"
	"sync"
	"time"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

const (
	// freshClaim is how old a claim that came with its task may be before it is asked
	// for again: sooner than this worker is taken for dead.
	freshClaim = silentAfter - time.Second
	// mostUnheard bounds how many calls are remembered whose answers did not come.
	mostUnheard = 1000
)

// firstClaims claims the first attempt at a message that comes alone in the step in
// which it is taken from its queue, so that the claim step has nothing to wait for. It
// does so only while a message is sent as soon as it is taken: one that waits may not
// be "sending".
type firstClaims struct {
	p       *pipeline
	store   status.FirstClaims
	unheard *unheard
}

var _ asynqredis.Rider = (*firstClaims)(nil)

// Lua implements [asynqredis.Rider].
func (f *firstClaims) Lua() string { return f.store.FirstClaimLua() }

// Board implements [asynqredis.Rider].
func (f *firstClaims) Board() []any {
	if f.p.limiter.mayWait() || f.p.breaker.state() != BreakerClosed {
		return nil
	}
	return f.store.FirstClaim(f.p.newToken())
}

// Unheard implements [asynqredis.Rider].
func (f *firstClaims) Unheard(r *asynqredis.Ride) { f.unheard.add(tokenOf(r)) }

// Leave implements [asynqredis.Rider]. It takes a second at most.
func (f *firstClaims) Leave(ctx context.Context, id string, r *asynqredis.Ride) {
	ctx, cancel := context.WithTimeout(ctx, settleTry) // what was taken is to be put back as well
	defer cancel()
	_ = f.p.unclaim(ctx, tasks.MessageID(id), tokenOf(r)) // or it counts as maybe sent
}

// board notes what was claimed when the task was taken.
func (a *attempt) board(r *asynqredis.Ride) {
	if r != nil {
		a.first, a.firstAsked = tokenOf(r), r.Asked
	}
}

// tokenOf is the token of the claims that came with the tasks of a call, or "".
func tokenOf(r *asynqredis.Ride) string {
	if r == nil {
		return ""
	}
	token, _ := r.Args[0].(string)
	return token
}

// unheard are the tokens of claims that came with tasks which this process was given
// by Redis and never heard of. It makes no request under them. It is safe for
// concurrent use.
type unheard struct {
	mu     sync.Mutex
	tokens []string // the oldest first
}

func (u *unheard) add(token string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tokens = append(u.tokens, token)
	if len(u.tokens) > mostUnheard {
		u.tokens = u.tokens[1:]
	}
}

func (u *unheard) all() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.tokens...)
}

// rider is what claims first attempts for this lane, or nil when its store cannot.
func (p *pipeline) rider() asynqredis.Rider {
	if store, ok := p.store.(status.FirstClaims); ok {
		return &firstClaims{p, store, p.unheard}
	}
	return nil
}
