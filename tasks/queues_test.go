package tasks_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/tasks"
)

func TestQueuesAreNamedAfterProviderAndLane(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want []string
	}{
		{-1, []string{"otpq:unimedbh:bulk"}},
		{0, []string{"otpq:unimedbh:bulk"}},
		{1, []string{"otpq:unimedbh:bulk"}},
		{3, []string{"otpq:unimedbh:bulk", "otpq:unimedbh:bulk:2", "otpq:unimedbh:bulk:3"}},
	} {
		if diff := cmp.Diff(tt.want, tasks.Queues("unimedbh", tasks.Bulk, tt.n)); diff != "" {
			t.Errorf("Queues(%d) (-want +got):\n%s", tt.n, diff)
		}
	}
}

// TestTheQueueOfAMessageIsTheSameInEveryVersion freezes it: a producer of another
// version that queues a message again, after its reply was lost, must name the same.
func TestTheQueueOfAMessageIsTheSameInEveryVersion(t *testing.T) {
	for _, tt := range []struct {
		id   string
		n    int
		want string
	}{
		{"019aaf5e-8c00-7d3e-9a57-3f1f5b1a0c11", 0, "otpq:kinpos:interactive"},
		{"019aaf5e-8c00-7d3e-9a57-3f1f5b1a0c11", 1, "otpq:kinpos:interactive"},
		{"019aaf5e-8c00-7d3e-9a57-3f1f5b1a0c11", 4, "otpq:kinpos:interactive:4"},
		{"019aaf5e-8c00-7d3e-9a57-3f1f5b1a0c12", 4, "otpq:kinpos:interactive:3"},
		{"019aaf5e-8c00-7d3e-9a57-3f1f5b1a0c13", 6, "otpq:kinpos:interactive:4"},
		{"019aaf5e-8c00-7d3e-9a57-3f1f5b1a0c14", 64, "otpq:kinpos:interactive:41"},
	} {
		if got := tasks.QueueOf("kinpos", tasks.Interactive, tt.id, tt.n); got != tt.want {
			t.Errorf("QueueOf(%s, %d) = %q, want %q", tt.id, tt.n, got, tt.want)
		}
	}
}

// TestMessagesSpreadEvenly compares how many ids go to each queue with what chance
// would make of it.
func TestMessagesSpreadEvenly(t *testing.T) {
	const each = 2000
	for _, n := range []int{2, 3, 4, 6, 8, 10, 16, 64} {
		counts := map[string]int{}
		for range each * n {
			counts[tasks.QueueOf("unimedbh", tasks.Interactive, tasks.NewID(), n)]++
		}
		chi := 0.0
		for _, queue := range tasks.Queues("unimedbh", tasks.Interactive, n) {
			off := float64(counts[queue] - each)
			chi += off * off / each
		}
		// It is about n-1, and hardly ever above n+5√(2n): once in 100,000 runs.
		if most := float64(n) + 5*math.Sqrt(2*float64(n)); chi > most || len(counts) != n {
			t.Errorf("%d queues: chi-square %.1f, want %.1f at most; counts %v", n, chi, most, counts)
		}
	}
}

func TestAQueueTellsWhoseItIs(t *testing.T) {
	for _, lane := range tasks.Lanes() {
		for i, name := range tasks.Queues("medsenior", lane, tasks.MaxQueues) {
			if provider, got, number, ok := tasks.ParseQueue(name); !ok || provider != "medsenior" || got != lane || number != i+1 {
				t.Errorf("ParseQueue(%q) = %q, %q, %d, %v", name, provider, got, number, ok)
			}
		}
	}
	for _, name := range []string{
		"", "default", "otpq", "otpq:", "otpq:kinpos", "otpq::bulk", "otpq:kinpos:", "otpq:kinpos:fast", "kinpos:bulk",
		"otpq:kinpos:bulk:", "otpq:kinpos:bulk:0", "otpq:kinpos:bulk:1", "otpq:kinpos:bulk:02", "otpq:kinpos:bulk:+2",
		"otpq:kinpos:bulk:-2", "otpq:kinpos:bulk:65", "otpq:kinpos:bulk:x", "otpq:kinpos:bulk:2:3", "otpq:kinpos:bulk:99999999999999999999",
	} {
		if provider, lane, number, ok := tasks.ParseQueue(name); ok || provider != "" || lane != "" || number != 0 {
			t.Errorf("ParseQueue(%q) = %q, %q, %d, %v; want not ok", name, provider, lane, number, ok)
		}
	}
}
