package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/oteltrace"
	"github.com/otpq/otpq/internal/tracing"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
)

// appTracer is an app's own, with OpenTelemetry as its documentation has it.
func appTracer(t *testing.T, c *collector) (trace.Tracer, func()) {
	t.Helper()
	exporter, err := otlptracehttp.New(t.Context(), otlptracehttp.WithEndpointURL(c.url+"/v1/traces"))
	if err != nil {
		t.Fatal(err)
	}
	p := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	return p.Tracer("app"), func() {
		if err := p.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}

func tracingTo(url string) string { return fmt.Sprintf("tracing: {endpoint: %q}", url) }

// traced is an app's context with a person in its baggage.
func traced(t *testing.T, span trace.Span) context.Context {
	t.Helper()
	member, err := baggage.NewMember("user", url.PathEscape(person))
	if err != nil {
		t.Fatal(err)
	}
	bag, err := baggage.New(member)
	if err != nil {
		t.Fatal(err)
	}
	return baggage.ContextWithBaggage(trace.ContextWithSpan(t.Context(), span), bag)
}

// wantNobody looks for a person in all bytes that the collector got, and for
// attributes that no span of ours has.
func (c *collector) wantNobody(t *testing.T) {
	t.Helper()
	raw := c.bytes()
	if raw == "" {
		t.Fatal("the collector got nothing")
	}
	forms := []string{person, url.QueryEscape(person), hex.EncodeToString([]byte(person)), base64.StdEncoding.EncodeToString([]byte(person)), "maria", "t0ken-of-the-test"}
	for _, form := range forms {
		if strings.Contains(strings.ToLower(raw), strings.ToLower(form)) {
			t.Errorf("the collector got %q", form)
		}
	}
	for _, s := range c.spans() {
		for key := range s.attributes {
			if s.service == "otpq" && !slices.Contains(tracing.Attributes(), key) {
				t.Errorf("span %s has the attribute %s, which is not on the list", s.name, key)
			}
		}
	}
}

func TestOneTraceLeadsFromTheAppToTheProviderAcrossARetry(t *testing.T) {
	r := newRig(t)
	c := newCollector(t)
	var mu sync.Mutex
	var seen []http.Header // by the vendor
	vendor := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		mu.Lock()
		seen = append(seen, req.Header.Clone())
		mu.Unlock()
		r.sandbox.Handler().ServeHTTP(rw, req)
	}))
	t.Cleanup(vendor.Close)
	r.url = vendor.URL
	if err := r.sandbox.SetFault("unimedbh", sandbox.Fault{FailNext: 1, ErrorStatus: 503, ErrorBody: person}); err != nil {
		t.Fatal(err)
	}
	app, flush := appTracer(t, c)
	_, login := app.Start(t.Context(), "login")
	ctx := traced(t, login)
	receipt, err := r.client.Send(ctx, unimedbh.Request{Username: person, Type: "EMAIL"}, oteltrace.FromContext(ctx), enqueue.Campaign("november"))
	if err != nil {
		t.Fatal(err)
	}
	login.End()
	flush()
	b := r.worker(r.writeConfig(tracingTo(c.url)))
	waitFor(t, "the code", func() bool { return r.record(receipt.ID).State == status.Accepted })
	if code := b.end(); code != exitDone {
		t.Fatalf("exit code = %d: %s", code, b.err)
	}

	logins, attempts, requests := c.named("login"), c.named("process "), c.named("request ")
	if len(c.spans()) != 5 || len(logins) != 1 || len(attempts) != 2 || len(requests) != 2 {
		t.Fatalf("spans = %+v, want the app's, two attempts and two requests", c.spans())
	}
	want := []map[string]string{
		{"otpq.outcome": "retry_later", "otpq.reason": "provider_unavailable", "otpq.state": "deferred", "error.type": "provider_unavailable"},
		{"otpq.outcome": "accepted", "otpq.reason": "", "otpq.state": "accepted", "error.type": ""},
	}
	for i, a := range attempts {
		if a.trace != logins[0].trace || a.parent != logins[0].id || a.kind != tracepb.Span_SPAN_KIND_CONSUMER || a.service != "otpq" {
			t.Errorf("attempt %d = %+v, want a consumer below the app's span %+v", i+1, a, logins[0])
		}
		for key, value := range want[i] {
			if a.text(key) != value {
				t.Errorf("attempt %d: %s = %q, want %q", i+1, key, a.text(key), value)
			}
		}
		if a.int("otpq.attempt") != int64(i+1) || a.text("messaging.message.id") != receipt.ID || a.text("otpq.campaign") != "november" ||
			a.text("otpq.provider") != "unimedbh" || a.text("otpq.lane") != "interactive" || a.text("messaging.system") != "asynq" {
			t.Errorf("attempt %d has the attributes %v", i+1, a.attributes)
		}
		q := requests[i]
		if q.trace != a.trace || q.parent != a.id || q.kind != tracepb.Span_SPAN_KIND_CLIENT || q.start < a.start || q.end > a.end || q.end <= q.start {
			t.Errorf("request %d = %+v, want a client's inside %+v", i+1, q, a)
		}
		if code := q.int("http.response.status_code"); code != []int64{503, 200}[i] {
			t.Errorf("request %d has the status %d", i+1, code)
		}
		if failed := q.failed; failed != []string{"provider_unavailable", ""}[i] || a.failed != failed {
			t.Errorf("request %d failed with %q, its attempt with %q", i+1, failed, a.failed)
		}
	}
	c.wantNobody(t)
	for _, line := range attemptLines(t, b) {
		if line["trace_id"] != logins[0].trace || line["campaign"] != "november" {
			t.Errorf("log line %v, want the app's trace and the campaign", line)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, h := range seen {
		if h.Get("Traceparent") != "" || h.Get("Tracestate") != "" || h.Get("Baggage") != "" {
			t.Errorf("the vendor was told of the trace: %v", h)
		}
	}
	if len(seen) != 2 {
		t.Errorf("the vendor saw %d requests, want 2", len(seen))
	}
}

// attemptLines are the lines of attempts in a worker's log.
func attemptLines(t *testing.T, b *background) []map[string]any {
	t.Helper()
	var out []map[string]any
	for _, line := range decodeLines[map[string]any](t, b.err.String()) {
		if line["message"] == "attempt" {
			out = append(out, line)
		}
	}
	if len(out) == 0 {
		t.Errorf("no attempt in the log: %s", b.err)
	}
	return out
}

func TestSendBeginsATraceWhereTracingIsOn(t *testing.T) {
	r := newRig(t)
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20c0llector")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1") // the configuration's counts
	r.file = r.writeConfig(tracingTo(c.url))
	b := r.worker(r.file)
	id := r.send("--wait")
	if code := b.end(); code != exitDone {
		t.Fatalf("exit code = %d: %s", code, b.err)
	}
	root, attempts := c.named("send "), c.named("process ")
	if len(root) != 1 || root[0].parent != "" || root[0].kind != tracepb.Span_SPAN_KIND_PRODUCER || root[0].text("messaging.message.id") != id {
		t.Fatalf("spans of send = %+v, want one root for %s", root, id)
	}
	if len(attempts) != 1 || attempts[0].parent != root[0].id || attempts[0].trace != root[0].trace {
		t.Errorf("attempts = %+v, want one below %+v", attempts, root[0])
	}
	if slices.ContainsFunc(c.tokens, func(token string) bool { return token != "Bearer c0llector" }) {
		t.Errorf("the collector was shown %q, want the token of the environment", c.tokens)
	}
	c.wantNobody(t)
}

func TestMessagesOfABatchAreTracedEachAsItsAppWants(t *testing.T) {
	r := newRig(t)
	c := newCollector(t)
	if err := r.sandbox.SetFault("unimedbh", sandbox.Fault{FailNext: 3, ErrorStatus: 503}); err != nil {
		t.Fatal(err)
	}
	app, flush := appTracer(t, c)
	ctx, batch := app.Start(t.Context(), "import")
	unsampled := map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"}
	req := unimedbh.Request{Username: person, Type: "EMAIL"}
	results, err := r.client.SendBatch(ctx, []enqueue.Item{
		{Request: req, Options: []enqueue.Option{oteltrace.FromContext(ctx)}},
		{Request: req, Options: []enqueue.Option{oteltrace.FromContext(t.Context())}},
		{Request: req, Options: []enqueue.Option{enqueue.Trace(unsampled)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	batch.End()
	flush()
	b := r.worker(r.writeConfig(tracingTo(c.url)))
	for _, one := range results {
		waitFor(t, "the code", func() bool { return r.record(one.Receipt.ID).State == status.Accepted })
	}
	b.end()
	traces := map[string][]string{}
	for _, s := range c.named("process ") {
		traces[s.text("messaging.message.id")] = append(traces[s.text("messaging.message.id")], s.trace)
	}
	mine := traces[results[0].Receipt.ID]
	if parent := c.named("import")[0].trace; !slices.Equal(mine, []string{parent, parent}) {
		t.Errorf("the first message's attempts are in %v, want two in the app's %s", mine, parent)
	}
	own := traces[results[1].Receipt.ID]
	if len(own) != 2 || own[0] != own[1] || own[0] == mine[0] {
		t.Errorf("the attempts of a message without a trace are in %v, want both in one of its own", own)
	}
	if got := traces[results[2].Receipt.ID]; len(got) != 0 {
		t.Errorf("a message whose app does not sample is in %v, want no span", got)
	}
	ids := map[any]any{}
	for _, line := range attemptLines(t, b) {
		ids[line["id"]] = line["trace_id"]
	}
	want := map[any]any{results[0].Receipt.ID: mine[0], results[1].Receipt.ID: own[0], results[2].Receipt.ID: unsampled["traceparent"][3:35]}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Errorf("traces in the log (-want +got):\n%s", diff)
	}
	c.wantNobody(t)
}

func TestTracingIsOffUntilAnEndpointIsSet(t *testing.T) {
	r := newRig(t)
	c := newCollector(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.url)
	b := r.worker(r.file)
	r.send("--wait")
	b.end()
	if n := len(c.spans()); n != 0 {
		t.Errorf("%d spans, want none", n)
	}
	for _, line := range attemptLines(t, b) {
		if line["trace_id"] != nil {
			t.Errorf("log line %v has a trace, and nobody made one", line)
		}
	}
}

// A collector that is away or answers nothing holds nobody up.
func TestMessagesDoNotWaitForTheCollector(t *testing.T) {
	ended := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ended }))
	t.Cleanup(func() { close(ended); hanging.Close() })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := "http://" + listener.Addr().String()
	listener.Close()
	for name, endpoint := range map[string]string{"away": away, "hanging": hanging.URL} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.file = r.writeConfig(tracingTo(endpoint))
			b := r.worker(r.file)
			r.send() // which prints its id before it tries the collector
			for range 20 {
				receipt, err := r.client.Send(t.Context(), unimedbh.Request{Username: person, Type: "EMAIL"})
				if err != nil {
					t.Fatal(err)
				}
				waitFor(t, "the code", func() bool { return r.record(receipt.ID).State == status.Accepted })
			}
			if code := b.end(); code != exitDone { // which a hanging flush would never let it
				t.Errorf("exit code = %d: %s", code, b.err)
			}
			warned := 0
			for _, line := range decodeLines[map[string]any](t, b.err.String()) {
				if line["level"] == "warn" && strings.Contains(fmt.Sprint(line["message"]), "traces") {
					warned++
				}
			}
			if warned == 0 || warned > 3 {
				t.Errorf("%d warnings about traces, want a few\n%s", warned, b.err)
			}
		})
	}
}

// Whoever reads the worker's log reads one kind of line, whatever wrote it.
func TestAsynqAndGoRedisLogAsTheWorkerDoes(t *testing.T) {
	r := newRig(t)
	cmd := command(t, []string{"OTPQ_CONFIG=" + r.file, "OTPQ_LOG_LEVEL=debug"}, "worker")
	log := &buffer{}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	waitFor(t, "the worker", func() bool { return strings.Contains(log.String(), "worker started") })
	r.redis.Stop()
	components := func() map[string]bool {
		found := map[string]bool{}
		text := log.String()
		for line := range strings.Lines(text[:strings.LastIndex(text, "\n")+1]) {
			var entry struct {
				Level, Component, Message string
				Time                      time.Time
			}
			if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Level == "" || entry.Time.IsZero() || entry.Message == "" {
				t.Fatalf("log line %q is not as the others: %v", line, err)
			}
			found[entry.Component] = true
		}
		return found
	}
	waitFor(t, "lines of asynq and of go-redis", func() bool { f := components(); return f["asynq"] && f["redis"] && f[""] })
}
