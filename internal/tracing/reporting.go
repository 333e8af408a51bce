package tracing

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// reportInterval is how often a failing exporter is logged.
const reportInterval = time.Minute

// reporting is an exporter whose failures are logged, now and then.
type reporting struct {
	sdktrace.SpanExporter
	log zerolog.Logger
	now func() time.Time

	mu   sync.Mutex
	last time.Time // when a failure was logged
	lost int       // spans since then
	down bool
}

// ExportSpans implements [sdktrace.SpanExporter]. It never fails: there is nothing
// that its caller could do.
func (r *reporting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil && !r.down:
	case err == nil:
		r.log.Info().Int("lost", r.lost).Msg("traces are taken again")
		r.lost, r.down, r.last = 0, false, time.Time{}
	default:
		r.down = true
		r.lost += len(spans)
		if now := r.now(); r.last.IsZero() || now.Sub(r.last) >= reportInterval {
			r.log.Warn().Err(err).Int("lost", r.lost).Msg("traces cannot be handed over; messages are not affected")
			r.lost, r.last = 0, now
		}
	}
	return nil
}
