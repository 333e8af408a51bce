package worker

import (
	"github.com/otpq/otpq/internal/tracing"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// trace tells the tracer of an execution that made an attempt or ended the message.
// One that only found that the message has to wait makes no span: an open breaker
// would otherwise make one for each message again and again.
func (p *pipeline) trace(a *attempt, v *verdict) {
	if p.tracer == nil {
		return
	}
	panicked := v.step == "send" && v.outcome.Reason == ReasonPanic
	asked := !a.recalled && (a.took > 0 || panicked)
	ended := v.write == writeMove && v.state.Terminal()
	if !asked && !ended && v.write != writeFinish {
		return
	}
	t := tracing.Attempt{
		Headers: a.headers, MessageID: a.message.ID, Provider: p.cfg.Name, Lane: string(p.lane),
		Queue: tasks.QueueName(p.cfg.Name, p.lane), State: string(v.state), Reason: string(v.reason),
		Campaign: a.message.Campaign, ReplayOf: a.message.ReplayOf, Started: a.started, Ended: p.now(),
		Failed: v.state != status.Accepted,
	}
	if !ended {
		t.Number, t.PossibleDuplicate = a.claimed.Attempt, a.claimed.Ambiguous > 0
		t.Outcome = v.outcome.Kind.String()
	}
	if asked {
		t.Request = tracing.Request{
			At: a.sentAt, Took: a.took, Outcome: t.Outcome, Reason: string(v.outcome.Reason), HTTPStatus: v.outcome.HTTPStatus,
			Failed: v.outcome.Kind != providers.Accepted,
		}
		if panicked {
			t.Request.Took = t.Ended.Sub(a.sentAt)
		}
	}
	p.tracer.Attempt(&t)
}
