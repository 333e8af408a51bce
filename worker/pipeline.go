package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hibiken/asynq"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/internal/tracing"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// pipeline works on the messages of one provider's lane. It is safe for
// concurrent use; the lanes of a provider share its breaker and its limiter.
type pipeline struct {
	cfg      ProviderConfig
	lane     tasks.Lane
	keys     *tasks.Keyring
	store    status.Store
	limiter  *limiter
	breaker  *breaker
	results  *results
	memory   *memory
	suspects *suspects
	unheard  *unheard
	worker   string // the id of this worker
	metrics  *metrics.Worker
	tracer   *tracing.Tracer // nil when it is off
	log      zerolog.Logger
	now      func() time.Time
	line     []step // its steps, made once: each costs an allocation
}

// step is one stage of the pipeline. It returns nil to go on, or the verdict
// that ends the execution.
type step struct {
	name string
	run  func(context.Context, *attempt) *verdict
}

// steps are taken in this order. All that a message may have to wait for comes
// before the claim, so that a message which waits is not "sending" and a crash
// there is not "maybe sent". A message that comes alone, and has nothing to wait for,
// comes claimed: see [firstClaims].
func (p *pipeline) steps() []step {
	return []step{
		{"suspect", p.checkSuspect},   // what may have killed its worker goes alone
		{"decode", p.decode},          // unreadable messages go to the dead letters
		{"deadline", p.checkDeadline}, // a late code is a useless code
		{"breaker", p.checkBreaker},   // before the limit: who can't send takes no token
		{"limit", p.takeToken},        // the send budget that all workers share
		{"permit", p.takePermit},      // after the limit: a probe is not held up
		{"claim", p.claim},            // from here a crash means "maybe sent"
		{"send", p.send},              // the only step that reaches a provider
	}
}

// process works on a task, and on what was claimed when it was taken, if anything
// was: see [firstClaims]. Its error is asynq's [asynq.Handler]'s.
func (p *pipeline) process(ctx context.Context, t *asynq.Task, ride func() *asynqredis.Ride) error {
	defer p.metrics.Hold(p.cfg.Name, string(p.lane))()
	a := p.newAttempt(ctx, t)
	begun := p.memory.begin(a.messageID, a.taskID)
	a.board(ride()) // not before: from here on recovery leaves it to us
	if !begun {
		return settle(p.dropClaim(ctx, a, again(ReasonBusy, p.now().Add(time.Second), nil)))
	}
	defer p.memory.end(a.messageID)
	v := p.run(ctx, a)         // decide what becomes of the message
	v = p.dropClaim(ctx, a, v) // take back a claim that it did not come to
	v = p.record(ctx, a, v)    // tell the status store
	p.trace(a, v)              // tell the tracer
	p.observe(a, v)            // tell the metrics and the log
	return settle(v)           // tell asynq
}

func (p *pipeline) newAttempt(ctx context.Context, t *asynq.Task) *attempt {
	id, _ := asynq.GetTaskID(ctx)
	return &attempt{taskID: id, messageID: tasks.MessageID(id), payload: t.Payload(), headers: t.Headers(), started: p.now()}
}

// run takes the attempt through the steps until one of them ends it. A panic
// ends it too: what was claimed by then may have been sent.
func (p *pipeline) run(ctx context.Context, a *attempt) (v *verdict) {
	current := "start"
	defer func() {
		if r := recover(); r != nil {
			err := fmt.Errorf("panic in step %s at %s", current, panicSite())
			if a.claimed.Result == status.ClaimedNow {
				v = p.classify(a, providers.Unknown(ReasonPanic, err))
			} else {
				v = end(status.Rejected, ReasonPanic, err)
			}
		}
		if a.permit != nil {
			a.permit.release()
			a.permit = nil
		}
		p.suspects.clear(a)
		v.step = current
	}()
	for _, s := range p.line {
		current = s.name
		if v := s.run(ctx, a); v != nil {
			return v
		}
	}
	panic("the last step did not end the attempt")
}

// decode reads the message and the provider's request in it.
func (p *pipeline) decode(_ context.Context, a *attempt) *verdict {
	var err error
	a.message, err = tasks.Decode(p.keys, a.payload)
	if err == nil && (a.message.Provider != p.cfg.Name || a.message.ID != a.messageID) {
		err = tasks.ErrMalformed // someone else's payload under this task's name
	}
	if err != nil {
		return p.unreadable(a, decodeReason(err), err)
	}
	if a.request, err = p.cfg.Decode(a.message.Request); err != nil {
		return end(status.Rejected, providers.ReasonInvalidRequest, err)
	}
	return nil
}

// unreadable ends a message that cannot be worked on. What is not known of it
// comes from the task. What is no message of a version that we know is sealed
// before it is kept, because nobody knows what is in it; the others are sealed as
// they are. All can be replayed once the right key, or the right version, is there.
func (p *pipeline) unreadable(a *attempt, reason providers.Reason, err error) *verdict {
	a.message.ID, a.message.Provider, a.message.Lane = a.messageID, p.cfg.Name, p.lane
	if a.message.CreatedAt.IsZero() {
		a.message.CreatedAt, a.message.NotAfter = a.started, a.started
	}
	if errors.Is(err, tasks.ErrMalformed) || errors.Is(err, tasks.ErrVersion) {
		if sealed, sealErr := tasks.Quarantine(p.keys, a.messageID, a.payload); sealErr == nil {
			a.payload = sealed
		}
	}
	return end(status.Rejected, reason, err)
}

func decodeReason(err error) providers.Reason {
	switch {
	case errors.Is(err, tasks.ErrVersion):
		return ReasonVersion
	case errors.Is(err, tasks.ErrKeyUnknown):
		return ReasonKey
	case errors.Is(err, tasks.ErrSealBroken):
		return ReasonSeal
	default:
		return ReasonUndecodable
	}
}

// checkDeadline ends a message whose time is over, unless this process knows
// that it was accepted in time and Redis has forgotten.
func (p *pipeline) checkDeadline(ctx context.Context, a *attempt) *verdict {
	if p.now().Before(a.message.NotAfter) {
		return nil
	}
	if made, ok := p.memory.recall(a.message.ID, 1); ok && made.outcome.Kind == providers.Accepted {
		return p.claim(ctx, a)
	}
	return end(status.Expired, ReasonDeadline, nil)
}

// takeToken waits a moment for the rate limit, and puts the message off when
// that is not enough. It costs no attempt.
func (p *pipeline) takeToken(ctx context.Context, a *attempt) *verdict {
	p.suspects.clear(a) // it has come through; the others do not wait for its token
	hold := min(holdBudget, a.message.NotAfter.Sub(p.now()))
	began := p.now()
	retry, err := p.limiter.take(ctx, p.lane, hold)
	if p.cfg.RateLimit.Limit > 0 || !retry.IsZero() {
		p.metrics.Limited(p.cfg.Name, string(p.lane), p.now().Sub(began))
	}
	if err != nil {
		return again(ReasonRedis, p.now().Add(time.Second), err)
	}
	if !retry.IsZero() {
		return a.wait(ReasonRateLimit, spread(retry, time.Second))
	}
	return p.checkDeadline(ctx, a) // it may have passed in the wait
}

// checkBreaker puts the message off while the provider is to be left alone. It
// costs no attempt.
func (p *pipeline) checkBreaker(_ context.Context, a *attempt) *verdict {
	if until, open := p.breaker.open(); open {
		return p.waitForBreaker(a, until)
	}
	return nil
}

// takePermit asks the breaker for this request, which may be a half-open one's
// only probe.
func (p *pipeline) takePermit(_ context.Context, a *attempt) *verdict {
	permit, until, ok := p.breaker.allow(p.now())
	if !ok {
		return p.waitForBreaker(a, until)
	}
	a.permit = &permit
	return nil
}

func (p *pipeline) waitForBreaker(a *attempt, until time.Time) *verdict {
	return a.wait(ReasonBreakerOpen, spread(until, min(p.cfg.Breaker.OpenFor/4, time.Second)))
}

// maxStall is how much longer than it may wait an execution may take to come to
// its request. A process that stood still for longer may have been taken for dead.
const maxStall = 5 * time.Second

// send makes the one request of this attempt.
func (p *pipeline) send(ctx context.Context, a *attempt) *verdict {
	a.sentAt = p.now()
	left := min(p.cfg.Timeout, a.message.NotAfter.Sub(a.sentAt))
	if left <= 0 || a.sentAt.Sub(a.started) > holdBudget+maxStall {
		return p.classify(a, providers.Retry(ReasonStalled, 0, nil))
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()

	o := p.cfg.Provider.Send(ctx, a.request)
	a.took = p.now().Sub(a.sentAt)
	p.memory.remember(a.message.ID, remembered{a.claimed.Attempt, o, a.took, a.sentAt})
	a.permit.report(o) // before classify, which asks how long the breaker is open
	a.permit = nil
	if o.Reason == providers.ReasonRateLimited {
		// The message itself waits as long as it was told to. The provider may
		// have meant only this recipient, so the others wait no longer than they
		// would for a breaker.
		p.limiter.pause(p.now(), min(o.RetryAfter, p.cfg.Breaker.OpenFor))
	}
	return p.classify(a, o)
}

// record writes the verdict to the status store, trying until it lands or its
// budget ends. It outlives ctx: a timeout ends the attempt, not the account of
// it. It returns the verdict that stands: when the record is someone else's by
// now, that is what it says.
func (p *pipeline) record(ctx context.Context, a *attempt, v *verdict) *verdict {
	if v.write == writeNothing {
		return v
	}
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordBudget)
	defer cancel()
	err := p.keepWriting(short, a, v)
	var refused *status.RefusedError
	switch {
	case status.IsUnreachable(err):
		if v.write == writeFinish {
			p.results.Go(func(ctx context.Context) { _ = p.keepWriting(ctx, a, v) })
		}
		return instead(v, again(ReasonRedis, p.now().Add(time.Second), err))
	case !errors.As(err, &refused):
		return v
	case refused.From.Terminal():
		return instead(v, &verdict{write: writeNothing, state: refused.From, err: err})
	case v.write == writeMove:
		return instead(v, p.endClaimed(short, a, v))
	}
	return instead(v, again(ReasonBusy, p.now().Add(abandonedAfter), err))
}

// instead gives a verdict that takes another's place the other's step, and the
// outcome of its request when it has none of its own to write.
func instead(of, v *verdict) *verdict {
	v.step = of.step
	if v.write == writeNothing {
		v.outcome = of.outcome
	}
	return v
}

// keepWriting tries until the write lands, is refused, or ctx ends.
func (p *pipeline) keepWriting(ctx context.Context, a *attempt, v *verdict) error {
	for wait := 25 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := p.write(ctx, a, v)
		if !status.IsUnreachable(err) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// endClaimed ends a message, or puts it off, by a verdict that needs no attempt,
// when another execution has claimed it: a dead worker's, mostly, that comes back
// after its deadline or behind an open breaker. The attempt it left may have been
// acted on.
func (p *pipeline) endClaimed(ctx context.Context, a *attempt, v *verdict) *verdict {
	ended := p.claim(ctx, a)
	switch {
	case ended == nil: // it was let go in between: no request was made
		a.sentAt = p.now()
		ended = &verdict{write: writeFinish, outcome: providers.Retry(ReasonStalled, 0, v.err), state: v.state, reason: v.reason, next: v.next}
	case ended.write == writeNothing: // not ours to end
		return ended
	case a.recalled: // this process knows what became of it
	case v.state == status.Deferred: // as any lost attempt, but not before what it waits for
		if ended.state == status.Deferred && ended.next.Before(v.next) {
			ended.next = v.next
		}
	case v.state == status.Rejected: // nobody can read it any more, but somebody could
		ended.state, ended.reason = status.Unknown, v.reason
	default:
		ended.state, ended.reason, ended.next = v.state, v.reason, time.Time{}
	}
	if err := p.keepWriting(ctx, a, ended); err != nil {
		return again(ReasonRedis, p.now().Add(time.Second), err)
	}
	return ended
}

func (p *pipeline) write(ctx context.Context, a *attempt, v *verdict) error {
	if v.write == writeMove {
		seed := p.seed(a)
		return p.store.Move(ctx, status.Move{
			ID: a.message.ID, Seed: &seed, Provider: p.cfg.Name, To: v.state,
			Reason: string(v.reason), Next: v.next, Payload: a.payload, Now: p.now(),
		})
	}
	finish := status.Finish{
		ID: a.message.ID, Provider: p.cfg.Name, Token: a.token,
		Attempt: status.Attempt{
			Number: a.claimed.Attempt, StartedAt: a.sentAt, DurationMS: float64(a.took.Microseconds()) / 1000,
			Outcome: v.outcome.Kind.String(), Reason: string(v.outcome.Reason), HTTPStatus: v.outcome.HTTPStatus,
		},
		Spent: v.spent, Ambiguous: v.outcome.Kind == providers.Ambiguous,
		State: v.state, Reason: string(v.reason), Next: v.next,
		Reference: v.outcome.Reference, CodeValid: v.outcome.ExpiresIn,
		Payload: a.payload, Now: p.now(),
	}
	err := p.store.Finish(ctx, finish)
	if errors.Is(err, status.ErrNotFound) { // Redis has lost the record
		if err := p.store.Create(ctx, p.seed(a)); status.IsUnreachable(err) {
			return err
		}
		err = p.store.Finish(ctx, finish)
	}
	return err
}

// seed is the record to write when the message has none.
func (p *pipeline) seed(a *attempt) status.Record {
	recipient := ""
	if a.request != nil {
		recipient = a.request.MaskedRecipient()
	}
	return status.NewRecord(a.message, recipient)
}

// guard turns a panic of f into an error.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic at %s", panicSite())
		}
	}()
	return f()
}

// panicSite tells where a panic came from, without its value: that may quote a
// request.
func panicSite() string {
	site, err := json.Marshal(string(debug.Stack()))
	if err != nil {
		return "unknown"
	}
	return string(site)
}
