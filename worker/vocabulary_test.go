package worker

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/providers"
)

// A reason that is missing from the vocabulary is counted as "other".
func TestTheVocabularyHasEveryReasonThatTheCodeDeclares(t *testing.T) {
	t.Parallel()
	var declared []string
	for _, file := range []string{"reasons.go", "../providers/outcome.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if word, err := strconv.Unquote(lit.Value); err == nil && word != "" {
					declared = append(declared, word)
				}
			}
			return true
		})
	}
	slices.Sort(declared)
	if len(declared) < 20 {
		t.Fatalf("only %d reasons were found in the code", len(declared))
	}
	if diff := cmp.Diff(declared, Reasons()); diff != "" {
		t.Errorf("reasons (-in the code +in the vocabulary):\n%s", diff)
	}
}

// sampleSum is the sum and the count of a histogram's only lane with samples.
func sampleSum(t *testing.T, registry *prometheus.Registry, name string) (sum float64, count uint64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			sum += m.GetHistogram().GetSampleSum()
			count += m.GetHistogram().GetSampleCount()
		}
	}
	return sum, count
}

const wait = 3 * time.Second

// The wait for a retry's time, or for the time that the app asked for, is no delay.
func TestThePickUpDelayBeginsWhenAMessageIsDue(t *testing.T) {
	for name, opts := range map[string][]enqueue.Option{
		"a retry":             nil,
		"a message for later": {enqueue.At(time.Now().Add(wait))},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			registry := prometheus.NewRegistry()
			attempts := 1
			outcomes := []providers.Outcome{accepted}
			if opts == nil { // the provider asks for three seconds
				attempts, outcomes = 2, []providers.Outcome{providers.Retry(providers.ReasonUnavailable, wait, nil), accepted}
			}
			_, stop := r.start(func(c *Config) { c.Metrics = metrics.NewWorker(registry) }, inTurn(outcomes...).config())
			rec := r.awaitState(r.send(opts...), "accepted")
			stop() // what is recorded is not counted yet
			if took := rec.UpdatedAt.Sub(rec.CreatedAt); took < wait-time.Second {
				t.Fatalf("the message took %s, want it to wait", took)
			}
			sum, count := sampleSum(t, registry, "otpq_pickup_delay_seconds")
			// Due times are whole seconds and looked for once a second; a loaded
			// machine adds to that, so compare with the whole, not with a figure.
			whole := rec.UpdatedAt.Sub(rec.CreatedAt).Seconds()
			if count != uint64(attempts) || sum > whole-wait.Seconds()+1 {
				t.Errorf("%d pick-ups took %.3f s together, want %d, and no more than what was left of %.3f s", count, sum, attempts, whole)
			}
		})
	}
}

func TestWaitsForTheLimitAndMessagesInHandAreCounted(t *testing.T) {
	r := newRig(t)
	registry := prometheus.NewRegistry()
	f := hanging()
	r.start(func(c *Config) { c.Metrics = metrics.NewWorker(registry) }, f.config(func(pc *ProviderConfig) {
		pc.RateLimit = RateLimit{Limit: 1000, Period: time.Second}
	}))
	r.send()
	eventually(t, func() bool { return len(f.requests()) == 1 }, func() string { return "no request" })
	want := map[string]float64{"otpq_in_flight": 1, "otpq_slots": 12}
	for name, value := range want {
		if got := gaugeSum(t, registry, name); got != value {
			t.Errorf("%s = %v, want %v", name, got, value)
		}
	}
	if _, n := sampleSum(t, registry, "otpq_limiter_wait_seconds"); n != 1 {
		t.Errorf("%d waits for the limit, want 1", n)
	}
	if n, err := testutil.GatherAndCount(registry, "otpq_attempts_total"); err != nil || n < 20 {
		t.Errorf("%d series of attempts before the first has ended, %v; want those that may come", n, err)
	}
}

func gaugeSum(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
