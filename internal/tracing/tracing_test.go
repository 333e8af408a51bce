package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// kept is an exporter that keeps what it gets. Its export is called first.
type kept struct {
	mu     sync.Mutex
	spans  []sdktrace.ReadOnlySpan
	export func(context.Context) error
}

func (k *kept) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if k.export != nil {
		if err := k.export(ctx); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spans = append(k.spans, spans...)
	return nil
}

func (*kept) Shutdown(context.Context) error { return nil }

func (k *kept) all() []sdktrace.ReadOnlySpan {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.spans)
}

func one(id string) *Attempt {
	now := time.Now()
	return &Attempt{
		MessageID: id, Provider: "kinpos", Lane: "bulk", Queue: "otpq:kinpos:bulk", State: "unknown", Reason: "timeout",
		Campaign: "c", ReplayOf: "r", Started: now, Ended: now.Add(time.Second), Number: 2, Outcome: "ambiguous",
		PossibleDuplicate: true, Failed: true,
		Request: Request{At: now, Took: time.Second, Outcome: "ambiguous", Reason: "timeout", HTTPStatus: 504, Failed: true},
	}
}

func TestAllAttributesAreOnTheList(t *testing.T) {
	t.Parallel()
	k := &kept{}
	tr := New(Config{Exporter: k, SampleRatio: 1})
	_, sending := tr.Send(t.Context(), "kinpos", "bulk", "q")
	sending.Done("id", "redis_unavailable")
	tr.Attempt(one("id"))
	if err := tr.Close(time.Minute); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, s := range k.all() {
		for _, a := range s.Attributes() {
			seen[string(a.Key)] = true
		}
		if len(s.Events()) != 0 {
			t.Errorf("span %s has events: %v", s.Name(), s.Events())
		}
	}
	for _, name := range Attributes() {
		if !seen[name] {
			t.Errorf("%s is on the list and on no span", name)
		}
		delete(seen, name)
	}
	if len(k.all()) != 3 || len(seen) != 0 {
		t.Errorf("%d spans with %v, which are not on the list", len(k.all()), seen)
	}
}

func TestWhoSentTheSpansIsToldAndNotHowItWasCalled(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	got := map[attribute.Key]string{}
	for _, a := range describe("v1.2.3").Attributes() {
		got[a.Key] = a.Value.AsString()
	}
	if got["service.name"] != "otpq" || got["service.version"] != "v1.2.3" || got["deployment.environment.name"] != "test" || got["service.instance.id"] == "" {
		t.Errorf("resource = %v", got)
	}
	for key := range got {
		if strings.HasPrefix(string(key), "process.") {
			t.Errorf("resource has %s, which may name a person", key)
		}
	}
}

func TestAShareOfTheMessagesIsTraced(t *testing.T) {
	t.Parallel()
	k := &kept{}
	tr := New(Config{Exporter: k, SampleRatio: 0.25})
	const n = 2000
	said := map[string]bool{}
	for i := range n {
		id := fmt.Sprintf("018f6d2e-0000-7000-8000-%012d", i)
		a := one(id)
		a.Request = Request{}
		tr.Attempt(a)
		if trace := tr.TraceID(id, nil); trace != "" {
			said[trace] = true
		}
	}
	if err := tr.Close(time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := len(k.all()); got < n/5 || got > n*3/10 {
		t.Errorf("%d of %d messages were traced, want about a quarter", got, n)
	}
	for _, s := range k.all() {
		id := s.SpanContext().TraceID().String()
		if !said[id] {
			t.Errorf("trace %s was not told to the log", id)
		}
		delete(said, id)
	}
	if len(said) != 0 {
		t.Errorf("the log was told of traces that there are not: %v", said)
	}
}

// What the app decided stands, whatever the ratio.
func TestTheAppDecidesOfItsOwnTraces(t *testing.T) {
	t.Parallel()
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
	for _, ratio := range []float64{0, 1} {
		for flag, want := range map[string]int{"0": 0, "1": 2} {
			k := &kept{}
			tr := New(Config{Exporter: k, SampleRatio: ratio})
			a := one("id")
			a.Headers = map[string]string{"traceparent": parent + flag, "tracestate": "vendor=1"}
			tr.Attempt(a)
			if err := tr.Close(time.Minute); err != nil {
				t.Fatal(err)
			}
			if len(k.all()) != want {
				t.Errorf("ratio %v, sampled %s: %d spans, want %d", ratio, flag, len(k.all()), want)
			}
			if got := tr.TraceID("id", a.Headers); got != parent[3:35] {
				t.Errorf("TraceID = %q, want the app's", got)
			}
		}
	}
	broken := map[string]string{"traceparent": "00-1-2-01"}
	if got := (*Tracer)(nil).TraceID("id", broken); got != "" {
		t.Errorf("TraceID of a broken traceparent = %q, want none", got)
	}
}

func TestAnExporterThatHangsHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	release, entered := make(chan struct{}), make(chan struct{})
	var once sync.Once
	k := &kept{export: func(context.Context) error { // and heeds no ctx
		once.Do(func() { close(entered) })
		<-release
		return nil
	}}
	tr := New(Config{Exporter: k, SampleRatio: 1})
	tr.Attempt(one("first"))
	<-entered
	for i := range 2 * queueSize { // this returns, or the test never ends
		tr.Attempt(one(fmt.Sprint(i)))
	}
	if err := tr.Close(10 * time.Millisecond); !errors.Is(err, ErrNotFlushed) {
		t.Errorf("Close = %v, want %v", err, ErrNotFlushed)
	}
	close(release)
	if n := len(k.all()); n > 2*queueSize {
		t.Errorf("%d spans were kept for the exporter, want no more than fit", n)
	}
}

func TestAFailingExporterIsLoggedNowAndThen(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	failing := true
	k := &kept{export: func(context.Context) error {
		if failing {
			return errors.New("collector is away")
		}
		return nil
	}}
	now := time.Unix(0, 0)
	r := &reporting{SpanExporter: k, log: zerolog.New(&log), now: func() time.Time { return now }}
	export := func() {
		t.Helper()
		if err := r.ExportSpans(t.Context(), make([]sdktrace.ReadOnlySpan, 5)); err != nil {
			t.Errorf("ExportSpans = %v, want nil", err)
		}
	}
	for range 61 { // a minute
		export()
		now = now.Add(time.Second)
	}
	export()
	failing = false
	export()
	export()
	var got []string
	for line := range strings.Lines(log.String()) {
		var entry struct {
			Level, Message, Error string
			Lost                  int
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %d %s", entry.Level, entry.Lost, entry.Error))
	}
	want := []string{"warn 5 collector is away", "warn 300 collector is away", "info 5 "}
	if !slices.Equal(got, want) {
		t.Errorf("log = %q, want %q", got, want)
	}
}

func TestANilTracerIsOff(t *testing.T) {
	var off *Tracer
	ctx, sending := off.Send(t.Context(), "kinpos", "bulk", "q")
	sending.Done("id", "")
	if trace.SpanContextFromContext(ctx).IsValid() {
		t.Error("there is a span")
	}
	if err := off.Close(0); err != nil {
		t.Error(err)
	}
	a := one("id")
	if n := testing.AllocsPerRun(100, func() { off.Attempt(a); _ = off.TraceID(a.MessageID, nil) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
