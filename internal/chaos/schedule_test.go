package chaos

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"
)

// trouble is one thing that goes wrong, and for how long.
type trouble struct {
	at, lasts time.Duration
	track     string // what it befalls: no two troubles of one track overlap
	kind      string
}

func (e trouble) String() string {
	return fmt.Sprintf("%6.1fs %-14s %s for %s", e.at.Seconds(), e.track, e.kind, e.lasts.Round(10*time.Millisecond))
}

// between is a range of durations.
type between struct{ from, to time.Duration }

func (b between) pick(r *rand.Rand) time.Duration {
	return b.from + time.Duration(r.Int64N(int64(b.to-b.from)+1))
}

const second = time.Second

// What befalls each kind of track, and for how long. Durations are such that the
// time that apps and workers have to get over a trouble is now shorter, now longer
// than it: a worker is taken for dead after seven seconds.
var (
	redisTroubles = map[string]between{
		"killed":         {second / 4, 3 * second},
		"stopped":        {second / 2, 4 * second},
		"script flush":   {0, 0},
		"clients killed": {0, 0},
	}
	workerTroubles = map[string]between{
		"killed":     {second / 4, 6 * second},
		"stopped":    {5 * second, 20 * second},
		"terminated": {second / 2, second},
	}
	netTroubles = map[string]between{
		"cut":     {second / 2, 8 * second},
		"latency": {2 * second, 8 * second},
		"hang":    {second, 8 * second},
		"mute":    {second / 2, 6 * second},
		"reset":   {second / 2, 4 * second},
	}
	providerTroubles = map[string]between{
		"answers 500":    {second, 5 * second},
		"answers 429":    {second, 3 * second},
		"hangs":          {second, 6 * second},
		"acts and hangs": {second, 4 * second},
		"acts and cuts":  {second, 4 * second},
		"acts late":      {second, 6 * second},
	}
)

// track is a line of troubles with calm between them.
type track struct {
	name     string
	troubles map[string]between
	calm     between
}

func tracks(workers []string) []track {
	out := []track{
		{"redis", redisTroubles, between{6 * second, 14 * second}},
		{"provider", providerTroubles, between{5 * second, 12 * second}},
		{appNet, netTroubles, between{5 * second, 15 * second}},
	}
	for _, w := range workers {
		out = append(out,
			track{w, workerTroubles, between{6 * second, 20 * second}},
			track{redisNet(w), netTroubles, between{8 * second, 25 * second}},
			track{providerNet(w), netTroubles, between{8 * second, 25 * second}})
	}
	return out
}

// The names of the networks: from the apps to Redis, and from a worker to Redis
// and to the provider.
const appNet = "app-redis"

func redisNet(worker string) string    { return worker + "-redis" }
func providerNet(worker string) string { return worker + "-provider" }

// random is a source of its own for each purpose, so that one more draw in one
// place changes no other.
func random(seed uint64, purpose string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(purpose))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// plan is the whole of what goes wrong in a run. Only seed, length and the names
// of the workers decide it. All of it is over by the end.
func plan(seed uint64, length time.Duration, workers []string) []trouble {
	var out []trouble
	for _, tr := range tracks(workers) {
		r := random(seed, tr.name)
		var deck []string
		for at := tr.calm.pick(r) / 2; ; at += tr.calm.pick(r) {
			if len(deck) == 0 { // each kind comes before any comes again
				for kind := range tr.troubles {
					deck = append(deck, kind)
				}
				slices.Sort(deck)
				r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
			}
			e := trouble{at: at, track: tr.name, kind: deck[0], lasts: tr.troubles[deck[0]].pick(r)}
			deck = deck[1:]
			if at >= length {
				break
			}
			e.lasts = min(e.lasts, length-at)
			out = append(out, e)
			at += e.lasts
		}
	}
	slices.SortStableFunc(out, func(a, b trouble) int { return cmp.Compare(a.at, b.at) })
	return out
}
