package tracing

import (
	"context"

	"go.opentelemetry.io/otel/trace"
)

// Sending is a message on its way into the queue.
type Sending struct{ span trace.Span }

// Send begins the span of a message that is queued. The returned ctx has it, for
// what is called with it; when t is off that is ctx, and there is no span.
func (t *Tracer) Send(ctx context.Context, toProvider, inLane, queue string) (context.Context, Sending) {
	if t == nil {
		return ctx, Sending{}
	}
	ctx, span := t.tracer.Start(ctx, "send "+queue, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(about("send", "send", toProvider, inLane, queue)...))
	return ctx, Sending{span}
}

// Done ends the span of a message that is queued as id, or of one that is not, when
// failed is a word for why not.
func (s Sending) Done(id, failed string) {
	if s.span == nil {
		return
	}
	if id != "" {
		s.span.SetAttributes(messageID.String(id))
	}
	if failed != "" {
		fail(s.span, failed)
	}
	s.span.End()
}
