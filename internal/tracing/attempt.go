package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// Attempt is what is told of one execution of a task, once it is over.
type Attempt struct {
	// Headers are the task's, with the app's trace context if it has one.
	Headers map[string]string

	MessageID, Provider, Lane, Queue string
	State, Reason                    string
	Campaign, ReplayOf               string
	Started, Ended                   time.Time

	// Number is 0 when the message ended without an attempt.
	Number            int
	Outcome           string
	PossibleDuplicate bool
	// Failed is true when the attempt did not come to what it was for.
	Failed bool

	// Request is the one to the provider; its At is zero when there was none.
	Request Request
}

// Request is what is told of a request to a provider.
type Request struct {
	At              time.Time
	Took            time.Duration
	Outcome, Reason string
	HTTPStatus      int // 0 when there was no reply
	Failed          bool
}

// Attempt makes the spans of an execution: a consumer's, below the app's span, and
// below it the client's, for the request. They are made when all is known of them:
// nothing is sent on to the provider that would need them earlier, and what only
// waits makes none.
func (t *Tracer) Attempt(a *Attempt) {
	if t == nil {
		return
	}
	ctx := context.Background()
	if app := from(a.Headers); app.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, app)
	} else {
		ctx = rootOf(ctx, a.MessageID)
	}
	ctx, span := t.tracer.Start(ctx, "process "+a.Queue, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(a.Started))
	if !span.IsRecording() {
		return
	}
	attributes := append(about("process", "process", a.Provider, a.Lane, a.Queue), messageID.String(a.MessageID), state.String(a.State))
	if a.Number > 0 {
		attributes = append(attributes, number.Int(a.Number), outcome.String(a.Outcome))
	}
	attributes = appendText(attributes, reason, a.Reason)
	attributes = appendText(attributes, campaign, a.Campaign)
	attributes = appendText(attributes, replayOf, a.ReplayOf)
	if a.PossibleDuplicate {
		attributes = append(attributes, duplicate.Bool(true))
	}
	span.SetAttributes(attributes...)
	if a.Failed {
		fail(span, either(a.Reason, a.State))
	}
	if !a.Request.At.IsZero() {
		t.request(ctx, a.Provider, &a.Request)
	}
	span.End(trace.WithTimestamp(a.Ended))
}

func (t *Tracer) request(ctx context.Context, to string, r *Request) {
	attributes := []attribute.KeyValue{peer.String(to), provider.String(to), outcome.String(r.Outcome)}
	if r.HTTPStatus != 0 {
		attributes = append(attributes, httpStatus.Int(r.HTTPStatus))
	}
	_, span := t.tracer.Start(ctx, "request "+to, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithTimestamp(r.At), trace.WithAttributes(appendText(attributes, reason, r.Reason)...))
	if r.Failed {
		fail(span, either(r.Reason, r.Outcome))
	}
	span.End(trace.WithTimestamp(r.At.Add(r.Took)))
}

func either(word, otherwise string) string {
	if word != "" {
		return word
	}
	return otherwise
}

func appendText(list []attribute.KeyValue, key attribute.Key, value string) []attribute.KeyValue {
	if value == "" {
		return list
	}
	return append(list, key.String(value))
}
