package worker

import (
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/status"
)

// observe counts the verdict and writes the one log line of this execution. A
// message that only waits is logged at debug level: an open breaker would
// otherwise write a line a message a second.
func (p *pipeline) observe(a *attempt, v *verdict) {
	lane := string(p.lane)
	p.observePickup(a, lane)
	made := v.write == writeFinish && a.took > 0 && !a.recalled // by this execution
	if made {
		p.metrics.Attempt(p.cfg.Name, lane, v.outcome.Kind.String(), string(v.outcome.Reason), a.took)
	}
	if v.write != writeNothing && v.state.Terminal() {
		p.metrics.Ended(p.cfg.Name, lane, string(v.state))
	}
	if v.state == status.Deferred {
		p.metrics.Deferred(p.cfg.Name, lane, string(v.reason))
	}
	if made && v.state == status.Accepted {
		p.metrics.Accepted(p.cfg.Name, lane, p.now().Sub(a.message.CreatedAt))
	}

	e := p.log.WithLevel(level(v)).
		Str("id", a.message.ID).Str("provider", p.cfg.Name).Str("lane", lane).
		Str("state", string(v.state)).Str("step", v.step).
		Dur("age_ms", p.now().Sub(a.message.CreatedAt))
	if v.reason != "" {
		e = e.Str("reason", string(v.reason))
	}
	if v.write == writeFinish {
		e = e.Int("attempt", a.claimed.Attempt).Str("outcome", v.outcome.Kind.String()).
			Dur("took_ms", a.took).Int("http_status", v.outcome.HTTPStatus)
		if a.claimed.Ambiguous > 0 {
			e = e.Bool("possible_duplicate", true)
		}
	}
	if !v.next.IsZero() {
		e = e.Time("next", v.next)
	}
	if a.message.Campaign != "" {
		e = e.Str("campaign", a.message.Campaign)
	}
	if e.Enabled() {
		if id := p.tracer.TraceID(a.message.ID, a.headers); id != "" {
			e = e.Str("trace_id", id)
		}
	}
	if v.err != nil {
		e = e.AnErr("error", v.err)
	}
	e.Msg("attempt")
}

// observePickup counts how long the message waited for this execution, if it came to
// claim an attempt. Asked for again, a claim does not tell when a retry was due.
func (p *pipeline) observePickup(a *attempt, lane string) {
	due := a.claimed.DueAt
	if due.IsZero() && a.claimed.Attempt == 1 {
		due = a.message.CreatedAt
	}
	if a.claimed.Result == status.ClaimedNow && !a.recalled && !due.IsZero() {
		p.metrics.PickedUp(p.cfg.Name, lane, a.started.Sub(due))
	}
}

func level(v *verdict) zerolog.Level {
	switch {
	case v.state.Dead():
		return zerolog.WarnLevel
	case v.write == writeFinish, v.state.Terminal():
		return zerolog.InfoLevel
	case v.err != nil:
		return zerolog.WarnLevel
	}
	return zerolog.DebugLevel
}
