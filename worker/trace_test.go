package worker

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/tracing"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// spans is an exporter that keeps what it gets.
type spans struct {
	mu   sync.Mutex
	list []sdktrace.ReadOnlySpan
}

// ExportSpans implements [sdktrace.SpanExporter].
func (s *spans) ExportSpans(_ context.Context, list []sdktrace.ReadOnlySpan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, list...)
	return nil
}

// Shutdown implements [sdktrace.SpanExporter].
func (*spans) Shutdown(context.Context) error { return nil }

// told is what the spans say of state, reason, and outcome, in the order of the
// attempts.
func (s *spans) told(t *testing.T, tracer *tracing.Tracer) []string {
	t.Helper()
	if err := tracer.Close(patience); err != nil {
		t.Fatal(err)
	}
	slices.SortStableFunc(s.list, func(a, b sdktrace.ReadOnlySpan) int {
		if n := a.StartTime().Compare(b.StartTime()); n != 0 {
			return n
		}
		return int(b.SpanKind()) - int(a.SpanKind())
	})
	var out []string
	for _, one := range s.list {
		line := one.SpanKind().String()
		for _, key := range []string{"otpq.state", "otpq.outcome", "otpq.reason"} {
			for _, a := range one.Attributes() {
				if string(a.Key) == key {
					line += " " + a.Value.AsString()
				}
			}
		}
		out = append(out, line)
	}
	return out
}

func TestEveryAttemptAndEveryEndHasASpanAndNoWaitHas(t *testing.T) {
	const limited = "behind the rate limit"
	for name, c := range map[string]struct {
		provider *fake
		opts     []enqueue.Option
		end      status.State
		want     []string
	}{
		"accepted": {always(accepted), nil, status.Accepted, []string{"consumer accepted accepted", "client accepted"}},
		"rejected after a retry": {
			inTurn(providers.Retry(providers.ReasonUnavailable, 0, nil), providers.Reject(providers.ReasonRecipientUnknown, nil)), nil, status.Rejected,
			[]string{
				"consumer deferred retry_later provider_unavailable", "client retry_later provider_unavailable",
				"consumer rejected rejected recipient_unknown", "client rejected recipient_unknown",
			},
		},
		"a panic is an attempt": {
			&fake{send: func(context.Context, int) providers.Outcome { panic("of the test") }}, []enqueue.Option{enqueue.MaxAttempts(1)}, status.Unknown,
			[]string{"consumer unknown ambiguous panic", "client ambiguous panic"},
		},
		"too late": {always(accepted), []enqueue.Option{enqueue.ValidFor(time.Millisecond)}, status.Expired, []string{"consumer expired deadline"}},
		limited:    {always(accepted), nil, status.Accepted, []string{"consumer accepted accepted", "client accepted"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			got := &spans{}
			tracer := tracing.New(tracing.Config{Exporter: got, SampleRatio: 1})
			pc := c.provider.config()
			if name == limited { // the first takes the token and makes no span; the second is put off
				pc.RateLimit = RateLimit{Limit: 1, Period: 3 * time.Second}
				r.send(enqueue.Trace(map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}))
			}
			id := r.send(c.opts...)
			_, stop := r.start(func(cfg *Config) { cfg.Tracer = tracer }, pc)
			r.awaitState(id, c.end)
			stop()
			if name == limited && !strings.Contains(r.log.String(), string(ReasonRateLimit)) {
				t.Error("the message did not have to wait: this shows nothing")
			}
			if diff := cmp.Diff(c.want, got.told(t, tracer)); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
		})
	}
}

// An attempt that reached the provider has a span though Redis could not be told.
func TestAnAttemptWhoseRecordIsNotWrittenHasASpan(t *testing.T) {
	got := &spans{}
	p := &pipeline{cfg: ProviderConfig{Name: "unimedbh"}, lane: tasks.Bulk, now: time.Now}
	p.tracer = tracing.New(tracing.Config{Exporter: got, SampleRatio: 1})
	a := &attempt{
		message: tasks.Message{ID: "m"}, started: time.Now(), sentAt: time.Now(), took: time.Second,
		claimed: status.Claimed{Result: status.ClaimedNow, Attempt: 1},
	}
	p.trace(a, instead(&verdict{step: "send", write: writeFinish, state: status.Accepted, outcome: accepted}, again(ReasonRedis, time.Now(), nil)))
	p.trace(&attempt{message: tasks.Message{ID: "m"}}, again(ReasonBusy, time.Now(), nil)) // none: another has it
	want := []string{"consumer deferred accepted redis_unavailable", "client accepted"}
	if diff := cmp.Diff(want, got.told(t, p.tracer)); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

func TestAnUntracedMessageCostsNothing(t *testing.T) {
	p := &pipeline{cfg: ProviderConfig{Name: "unimedbh"}, lane: tasks.Bulk, now: time.Now}
	a := &attempt{message: tasks.Message{ID: "m"}, started: time.Now(), sentAt: time.Now(), took: time.Second}
	v := &verdict{write: writeFinish, state: status.Accepted, step: "send", outcome: accepted}
	if n := testing.AllocsPerRun(1000, func() { p.trace(a, v); _ = p.tracer.TraceID(a.message.ID, a.headers) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// BenchmarkTrace is what tracing adds to a message.
func BenchmarkTrace(b *testing.B) {
	rdb := redis.NewClient(&redis.Options{}) // nothing here talks to it
	defer rdb.Close()
	for name, tracer := range map[string]*tracing.Tracer{
		"off":       nil,
		"unsampled": tracing.New(tracing.Config{Exporter: &spans{}}),
		"sampled":   tracing.New(tracing.Config{Exporter: discard{}, SampleRatio: 1}),
	} {
		b.Run(name, func(b *testing.B) {
			p := benchWorker(b, rdb, tasks.Key{ID: "bench", Secret: tasks.GenerateSecret()}, yesStore{}, &instant{}).handlers[0]
			p.tracer = tracer
			a := &attempt{message: tasks.Message{ID: tasks.NewID()}, started: time.Now(), sentAt: time.Now(), took: time.Second}
			v := &verdict{write: writeFinish, state: status.Accepted, step: "send", outcome: accepted}
			b.ReportAllocs()
			for b.Loop() {
				p.trace(a, v)
				_ = p.tracer.TraceID(a.message.ID, a.headers)
			}
		})
		_ = tracer.Close(time.Second)
	}
}

type discard struct{}

// ExportSpans implements [sdktrace.SpanExporter].
func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }

// Shutdown implements [sdktrace.SpanExporter].
func (discard) Shutdown(context.Context) error { return nil }
