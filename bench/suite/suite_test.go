package suite

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/bench/peers"
	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
)

// A goal that names a case or a figure which no longer exists would silently be
// left out of the page.
func TestEveryGoalHasItsCaseAndItsFigure(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range all() {
		if seen[s.Name] || s.n == 0 || s.Title == "" || s.About == "" {
			t.Errorf("suite %q is there twice, or lacks a number of messages or words", s.Name)
		}
		seen[s.Name] = true
		var names, keys []string
		for _, c := range s.cases {
			if slices.Contains(names, c.name) || strings.Contains(c.name, ",") {
				t.Errorf("%s: case %q is there twice, or has a comma, which parts the list of cases", s.Name, c.name)
			}
			names = append(names, c.name)
		}
		for _, c := range s.Columns {
			keys = append(keys, c.Key)
		}
		if s.Plot != "" && !slices.Contains(keys, s.Plot) {
			t.Errorf("%s: nothing is measured as %q, which is to be drawn", s.Name, s.Plot)
		}
		for _, g := range s.Goals {
			for _, name := range []string{g.Case, g.Against} {
				if name == "" || strings.HasPrefix(name, "otpq SendBatch") && !peers.BatchReady {
					continue
				}
				if !slices.Contains(names, name) {
					t.Errorf("%s: goal %q is about %q, which takes no part", s.Name, g.Text, name)
				}
			}
			if !slices.Contains(keys, g.Key) {
				t.Errorf("%s: goal %q is about %q, which is no column", s.Name, g.Text, g.Key)
			}
		}
	}
}

func TestCasesAreChosenByNameOrStem(t *testing.T) {
	for _, c := range []struct {
		name     string
		patterns []string
		want     bool
	}{
		{"otpq", nil, true},
		{"otpq", []string{"asynq", "otpq"}, true},
		{"otpq limited", []string{"otpq"}, false},
		{"otpq limited", []string{"OTPQ*"}, true},
		{"BullMQ", []string{"bullmq"}, true},
		{"asynq", []string{"otpq*"}, false},
	} {
		if got := chosen(c.name, c.patterns); got != c.want {
			t.Errorf("chosen(%q, %q) = %v, want %v", c.name, c.patterns, got, c.want)
		}
	}
}

func TestWhatTheProviderLacksIsAProblem(t *testing.T) {
	for name, c := range map[string]struct {
		tally provider.Tally
		want  []string
	}{
		"all once":        {provider.Tally{Distinct: 3}, nil},
		"one lost":        {provider.Tally{Distinct: 2}, []string{"1 lost"}},
		"one doubled":     {provider.Tally{Distinct: 3, Doubled: 1}, []string{"1 doubled"}},
		"one of nobody's": {provider.Tally{Distinct: 3, Strange: 1}, []string{"1 requests that are none of this run's"}},
	} {
		r := &run{}
		r.tally(c.tally, 3)
		if diff := cmp.Diff(c.want, r.result.Problems); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestQuantilesAreInMilliseconds(t *testing.T) {
	r := &run{result: report.Run{Values: map[string]float64{}}}
	r.quantiles(gaps([]int64{1e6, 2e6, 3e6}, []int64{2e6, 5e6, 13e6}))
	want := map[string]float64{"p50": 3, "p95": 10, "p99": 10, "max": 10}
	if diff := cmp.Diff(want, r.result.Values); diff != "" {
		t.Errorf("quantiles (-want +got):\n%s", diff)
	}
}

func TestWhatIsUsedUpIsNamed(t *testing.T) {
	for name, c := range map[string]struct{ redis, all, want float64 }{
		"nothing": {0.5, 0.5 * float64(cores), 0},
		"the CPU": {0.5, 0.95 * float64(cores), 1},
		"Redis":   {0.95, 0.95 * float64(cores), 2},
	} {
		if got := usedUp(c.redis, c.all); got != c.want {
			t.Errorf("%s: usedUp(%v, %v) = %v, want %v", name, c.redis, c.all, got, c.want)
		}
	}
}
