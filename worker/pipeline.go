package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// pipeline works on the messages of one provider's lane. It is safe for
// concurrent use; the lanes of a provider share its breaker and its limiter.
type pipeline struct {
	cfg     ProviderConfig
	lane    tasks.Lane
	keys    *tasks.Keyring
	store   status.Store
	limiter *limiter
	breaker *breaker
	metrics *metrics.Worker
	log     zerolog.Logger
	now     func() time.Time
}

// step is one stage of the pipeline. It returns nil to go on, or the verdict
// that ends the execution.
type step struct {
	name string
	run  func(context.Context, *attempt) *verdict
}

// steps are taken in this order. Limit and breaker come before claim, so that a
// message which waits is not "sending" and a crash there is not "maybe sent";
// the breaker comes after the limit, so that its one probe is not held up.
func (p *pipeline) steps() []step {
	return []step{
		{"decode", p.decode},          // unreadable messages go to the dead letters
		{"deadline", p.checkDeadline}, // a late code is a useless code
		{"limit", p.takeToken},        // the send budget that all workers share
		{"breaker", p.checkBreaker},   // a provider that is down is left alone
		{"claim", p.claim},            // from here a crash means "maybe sent"
		{"send", p.send},              // the only step that reaches a provider
	}
}

// ProcessTask implements [asynq.Handler].
func (p *pipeline) ProcessTask(ctx context.Context, t *asynq.Task) error {
	a := p.newAttempt(ctx, t)
	v := p.run(ctx, a)      // decide what becomes of the message
	v = p.record(ctx, a, v) // tell the status store
	p.observe(a, v)         // tell the metrics and the log
	return settle(v)        // tell asynq
}

func (p *pipeline) newAttempt(ctx context.Context, t *asynq.Task) *attempt {
	id, _ := asynq.GetTaskID(ctx)
	return &attempt{taskID: id, payload: t.Payload(), headers: t.Headers(), started: p.now()}
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
		v.step = current
	}()
	for _, s := range p.steps() {
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
	if err == nil && (a.message.Provider != p.cfg.Name || a.message.ID != a.taskID) {
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
// comes from the task; the payload is sealed before it is kept, because nobody
// knows what is in it.
func (p *pipeline) unreadable(a *attempt, reason providers.Reason, err error) *verdict {
	a.message.ID, a.message.Provider, a.message.Lane = a.taskID, p.cfg.Name, p.lane
	if a.message.CreatedAt.IsZero() {
		a.message.CreatedAt, a.message.NotAfter = a.started, a.started
	}
	if reason == ReasonUndecodable {
		if sealed, sealErr := tasks.Quarantine(p.keys, a.taskID, a.payload); sealErr == nil {
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
	default:
		return ReasonUndecodable
	}
}

// checkDeadline ends a message whose time is over.
func (p *pipeline) checkDeadline(_ context.Context, a *attempt) *verdict {
	if !p.now().Before(a.message.NotAfter) {
		return end(status.Expired, ReasonDeadline, nil)
	}
	return nil
}

// takeToken waits a moment for the rate limit, and puts the message off when
// that is not enough. It costs no attempt.
func (p *pipeline) takeToken(ctx context.Context, a *attempt) *verdict {
	hold := min(holdBudget, a.message.NotAfter.Sub(p.now()))
	retry, err := p.limiter.take(ctx, p.lane, hold)
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
	permit, until, ok := p.breaker.allow(p.now())
	if !ok {
		return a.wait(ReasonBreakerOpen, spread(until, min(p.cfg.Breaker.OpenFor/4, time.Second)))
	}
	a.permit = &permit
	return nil
}

// claim takes the right to make the attempt, which only one execution has. An
// attempt that a dead worker left behind is ended here as what it is: maybe sent.
func (p *pipeline) claim(ctx context.Context, a *attempt) *verdict {
	a.token = uuid.NewString()
	c, err := p.store.Claim(ctx, status.Claim{
		Seed: p.seed(a), Token: a.token, Now: p.now(), AbandonedAfter: abandonedAfter,
	})
	if err != nil {
		return again(ReasonRedis, p.now().Add(time.Second), err)
	}
	a.claimed = c
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
	a.permit.report(o) // before classify, which asks how long the breaker is open
	a.permit = nil
	if o.Reason == providers.ReasonRateLimited {
		p.limiter.pause(p.now(), o.RetryAfter)
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
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordBudget)
	defer cancel()
	var err error
	for wait := 25 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if err = p.write(ctx, a, v); !status.IsUnreachable(err) {
			break
		}
		select {
		case <-time.After(wait):
			continue
		case <-ctx.Done():
		}
		stands := again(ReasonRedis, p.now().Add(time.Second), err)
		stands.step = v.step
		return stands
	}
	var refused *status.RefusedError
	if !errors.As(err, &refused) {
		return v
	}
	stands := again(ReasonBusy, p.now().Add(abandonedAfter), err)
	if refused.From.Terminal() {
		stands = &verdict{write: writeNothing, state: refused.From, err: err}
	}
	stands.step = v.step
	return stands
}

func (p *pipeline) write(ctx context.Context, a *attempt, v *verdict) error {
	if v.write == writeMove {
		seed := p.seed(a)
		return p.store.Move(ctx, status.Move{
			ID: a.message.ID, Seed: &seed, Provider: p.cfg.Name, To: v.state,
			Reason: string(v.reason), Next: v.next, Payload: a.payload, Now: p.now(),
		})
	}
	return p.store.Finish(ctx, status.Finish{
		ID: a.message.ID, Provider: p.cfg.Name, Token: a.token,
		Attempt: status.Attempt{
			Number: a.claimed.Attempt, StartedAt: a.sentAt, DurationMS: float64(a.took.Microseconds()) / 1000,
			Outcome: v.outcome.Kind.String(), Reason: string(v.outcome.Reason), HTTPStatus: v.outcome.HTTPStatus,
		},
		Spent: v.spent, Ambiguous: v.outcome.Kind == providers.Ambiguous,
		State: v.state, Reason: string(v.reason), Next: v.next,
		Reference: v.outcome.Reference, CodeValid: v.outcome.ExpiresIn,
		Payload: a.payload, Now: p.now(),
	})
}

// seed is the record to write when the message has none.
func (p *pipeline) seed(a *attempt) status.Record {
	recipient := ""
	if a.request != nil {
		recipient = a.request.MaskedRecipient()
	}
	return status.NewRecord(a.message, recipient)
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
