package chaos

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// kill is one moment at which somebody is killed.
type kill struct {
	requests int           // once the provider has seen so many,
	after    time.Duration // and then some
	whom     string
	worker   int           // which, of whom is a worker
	slip     time.Duration // after a feeder at work has begun
	down     time.Duration // before another is started
}

func (k kill) String() string {
	return fmt.Sprintf("%d requests, %3d ms later: %s for %s", k.requests, k.after.Milliseconds(), k.whom, k.down.Round(10*time.Millisecond))
}

// planKills draws moments all over the campaign. Each kind comes before any comes
// again. Whoever fed is now and then away for longer than it takes a worker to step in.
func planKills(seed uint64, messages, n int) []kill {
	r := random(seed, "campaign")
	var at []int
	for range n {
		at = append(at, messages/50+r.IntN(messages*85/100))
	}
	slices.Sort(at)
	var kills []kill
	var deck []string
	for _, requests := range at {
		if len(deck) == 0 {
			deck = []string{"feeder at work", "worker", "feeder at work", "worker", "feeder at work", "feeder", "all"}
			r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		k := kill{requests: requests, whom: deck[0], worker: r.IntN(campaignWorkers), down: between{second / 10, 2 * second}.pick(r)}
		deck = deck[1:]
		if r.IntN(2) == 0 {
			k.after = between{0, 800 * time.Millisecond}.pick(r)
		}
		if r.IntN(3) > 0 {
			k.slip = between{0, 30 * time.Millisecond}.pick(r)
		}
		if strings.HasPrefix(k.whom, "feeder") && r.IntN(3) == 0 {
			k.down = between{8 * second, 12 * second}.pick(r)
		}
		kills = append(kills, k)
	}
	return kills
}

func TestASeedDecidesAllKills(t *testing.T) {
	first := planKills(7, 5000, 10)
	if !slices.Equal(first, planKills(7, 5000, 10)) {
		t.Error("the same seed plans other kills")
	}
	if slices.Equal(first, planKills(8, 5000, 10)) {
		t.Error("another seed plans the same kills")
	}
	for _, k := range first {
		if k.requests < 1 || k.requests > 4500 {
			t.Errorf("%s: too early or too late to be sure that it comes", k)
		}
	}
}
