package oteltrace_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/oteltrace"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/tasks"
)

// spanned is ctx with a span, as an app's own library leaves it.
func spanned(ctx context.Context, t *testing.T) context.Context {
	t.Helper()
	state, err := trace.ParseTraceState("vendor=1")
	if err != nil {
		t.Fatal(err)
	}
	bag, err := baggage.Parse("user=maria.souza%40example.com")
	if err != nil {
		t.Fatal(err)
	}
	return baggage.ContextWithBaggage(trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0: 1, 15: 2}, SpanID: trace.SpanID{0: 3, 7: 4}, TraceFlags: trace.FlagsSampled, TraceState: state,
	})), bag)
}

func TestTheTraceTravelsAndNothingElse(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	client, err := enqueue.Open(enqueue.Config{Redis: rdb, Keys: []tasks.Key{{ID: "k", Secret: tasks.GenerateSecret()}}})
	if err != nil {
		t.Fatal(err)
	}
	headers := func(opts ...enqueue.Option) map[string]string {
		t.Helper()
		receipt, err := client.Send(t.Context(), unimedbh.Request{Username: "maria.souza@example.com", Type: "EMAIL"}, opts...)
		if err != nil {
			t.Fatal(err)
		}
		info, err := asynq.NewInspectorFromRedisClient(rdb).GetTaskInfo(tasks.QueueName("unimedbh", tasks.Interactive), receipt.ID)
		if err != nil {
			t.Fatal(err)
		}
		return info.Headers
	}
	want := map[string]string{"traceparent": "00-01000000000000000000000000000002-0300000000000004-01", "tracestate": "vendor=1"}
	if diff := cmp.Diff(want, headers(oteltrace.FromContext(spanned(t.Context(), t)))); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{}, headers(oteltrace.FromContext(t.Context())), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("headers of a message without a trace (-want +got):\n%s", diff)
	}
}

// An app has its own SDK, in its own version, or none.
func TestNoSDKComesWithIt(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-buildvcs=false", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	api := false
	for dep := range strings.FieldsSeq(string(out)) {
		api = api || dep == "go.opentelemetry.io/otel/propagation"
		for _, unwanted := range []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "google.golang.org/grpc", "github.com/otpq/otpq/internal/tracing"} {
			if dep == unwanted || strings.HasPrefix(dep, unwanted+"/") {
				t.Errorf("it depends on %s", dep)
			}
		}
	}
	if !api {
		t.Errorf("go list -deps = %s, want the propagation API in it", out)
	}
}

func ExampleFromContext() {
	login := func(ctx context.Context, client *enqueue.Client) error {
		_, err := client.Send(ctx, unimedbh.Request{Username: "teste@gmail.com", Type: "EMAIL"}, oteltrace.FromContext(ctx))
		return err
	}
	fmt.Println(login != nil)
	// Output: true
}
