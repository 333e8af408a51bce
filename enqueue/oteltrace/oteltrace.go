// Package oteltrace links an app's OpenTelemetry trace with what otpq does later.
// It stands apart so that an app without OpenTelemetry pulls in nothing of it, and
// it needs the API alone: exporting is the app's affair.
package oteltrace

import (
	"context"

	"go.opentelemetry.io/otel/propagation"

	"github.com/otpq/otpq/enqueue"
)

// FromContext makes the message part of ctx's trace: the worker's spans come below
// the span that ctx holds, and are made if that one is sampled. Without a span it
// changes nothing. Baggage does not travel: it would be readable in Redis.
func FromContext(ctx context.Context) enqueue.Option {
	headers := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, headers)
	return enqueue.Trace(headers)
}
