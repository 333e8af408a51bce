// Package tracing makes OpenTelemetry spans of what otpq does with a message: one
// for the command that queued it, one for each attempt, and one for the request to
// its provider. It exports nothing itself: the command hands it an exporter. No
// span names a person; what one may hold is listed in attributes.go.
package tracing

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Tracer makes spans. It is safe for concurrent use, and no call but Close waits
// for anything. A nil Tracer is off.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	ratio    sdktrace.Sampler
}

// Config is what a Tracer is made from.
type Config struct {
	// Exporter takes the spans, from one goroutine. The Tracer closes it.
	Exporter sdktrace.SpanExporter
	// SampleRatio is the share of messages, from 0 to 1, of which spans are made
	// when their app has not decided that.
	SampleRatio float64
	Version     string // of otpq
	// Log is told now and then when the exporter fails.
	Log zerolog.Logger
}

const (
	// queueSize is how many spans wait for the exporter, of about 1 KiB each. What
	// comes when there are as many is dropped.
	queueSize = 8192
	// batchDelay is how long a span waits for others to go with.
	batchDelay = time.Second
	// exportTimeout bounds one call of the exporter, its retries included.
	exportTimeout = 10 * time.Second
)

// New makes a Tracer, which has to be closed.
func New(cfg Config) *Tracer {
	t := &Tracer{ratio: sdktrace.TraceIDRatioBased(cfg.SampleRatio)}
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(t.ratio)),
		sdktrace.WithIDGenerator(ids{}),
		sdktrace.WithResource(describe(cfg.Version)),
		sdktrace.WithBatcher(&reporting{SpanExporter: cfg.Exporter, log: cfg.Log, now: time.Now},
			sdktrace.WithMaxQueueSize(queueSize), sdktrace.WithBatchTimeout(batchDelay), sdktrace.WithExportTimeout(exportTimeout)),
	)
	t.tracer = t.provider.Tracer("github.com/otpq/otpq", trace.WithInstrumentationVersion(cfg.Version))
	return t
}

// describe says who made the spans. Not how it was called: a command's arguments
// may name a person. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES add to it.
func describe(version string) *resource.Resource {
	own := resource.NewSchemaless(
		attribute.String("service.name", "otpq"), attribute.String("service.version", version),
		attribute.String("service.instance.id", uuid.NewString()),
	)
	r, err := resource.Merge(own, resource.Environment())
	if err != nil {
		return own
	}
	return r
}

// ErrNotFlushed means that spans were left when Close had to end.
var ErrNotFlushed = errors.New("not all spans could be handed over in time")

// Close hands over what is left, for at most as long as bound. Spans that are made
// later are dropped.
func (t *Tracer) Close(bound time.Duration) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		return errors.Join(ErrNotFlushed, err)
	}
	return nil
}

// TraceID is the trace that a message belongs to, or "": the one its app wrote into
// the task's headers, or else the one that this Tracer has made for it.
func (t *Tracer) TraceID(messageID string, headers map[string]string) string {
	if app := from(headers); app.IsValid() {
		return app.TraceID().String()
	}
	if t == nil {
		return ""
	}
	id := traceOf(messageID)
	if t.ratio.ShouldSample(sdktrace.SamplingParameters{TraceID: id}).Decision != sdktrace.RecordAndSample {
		return ""
	}
	return id.String()
}

// from reads the app's trace context. It costs nothing when there is none.
func from(headers map[string]string) trace.SpanContext {
	if headers["traceparent"] == "" {
		return trace.SpanContext{}
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(headers))
	return trace.SpanContextFromContext(ctx)
}

// messageKey is for the id of the message that a root span is about.
type messageKey struct{}

// rootOf has a span that has no parent belong to the message's own trace.
func rootOf(ctx context.Context, messageID string) context.Context {
	return context.WithValue(ctx, messageKey{}, messageID)
}

// traceOf is the trace of a message whose app has none. All attempts are in it,
// whichever workers make them, and nothing more has to travel. The id is hashed
// because the sampler wants any bit of it to be as good as another.
func traceOf(messageID string) trace.TraceID {
	sum := sha256.Sum256([]byte("otpq trace " + messageID))
	return trace.TraceID(sum[:16])
}

// ids makes the ids of spans, and of traces.
type ids struct{}

// NewIDs implements [sdktrace.IDGenerator].
func (g ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	var id trace.TraceID
	if message, ok := ctx.Value(messageKey{}).(string); ok {
		id = traceOf(message)
	}
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements [sdktrace.IDGenerator].
func (ids) NewSpanID(context.Context, trace.TraceID) trace.SpanID {
	var id trace.SpanID
	for !id.IsValid() {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// fail marks a span, with a word of a closed set and never an error's text.
func fail(span trace.Span, why string) {
	span.SetStatus(codes.Error, why)
	span.SetAttributes(errorType.String(why))
}
