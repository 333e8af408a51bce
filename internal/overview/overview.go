// Package overview tells how the providers are: their limits, the breakers of all
// living workers, and what waits. Commands and the dashboard show it. It changes
// nothing.
package overview

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/backlog"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// BreakerUnknown is the state of a provider's breaker when no worker lives that
// serves the provider.
const BreakerUnknown = "unknown"

// Settings are what the configuration says of one provider.
type Settings struct {
	Name string
	// Off says why the provider cannot be used; empty when it can.
	Off       string
	BaseURL   string
	Timeout   time.Duration
	RateLimit RateLimit
	// Concurrency is the slots of each worker.
	Concurrency map[tasks.Lane]int
	// Queues is how many each lane has.
	Queues int
}

// Provider is how one provider is. Its JSON form is what `otpq providers` prints.
type Provider struct {
	Name string `json:"name"`
	On   bool   `json:"on"`
	// Off says why, for this configuration.
	Off       string          `json:"off,omitempty"`
	BaseURL   string          `json:"base_url,omitempty"`
	Timeout   string          `json:"timeout"`
	RateLimit RateLimit       `json:"rate_limit"`
	Breaker   Breaker         `json:"breaker"`
	Lanes     map[string]Lane `json:"lanes"`
}

// OffEverywhere reports whether nobody has the provider on. What this configuration
// lacks, such as the workers' tokens, must not hide how their breaker is.
func (p Provider) OffEverywhere() bool { return p.Off != "" && len(p.Breaker.Workers) == 0 }

// RateLimit is the limit that all workers share.
type RateLimit struct {
	Limit  int    `json:"limit"` // 0 is no limit
	Period string `json:"period"`
}

// Breaker sums up the breakers of all living workers.
type Breaker struct {
	// State is open when any worker's is, then half-open, then closed; unknown
	// when no worker lives.
	State     string                            `json:"state"`
	OpenUntil time.Time                         `json:"open_until,omitzero"`
	Workers   map[string]worker.BreakerPresence `json:"workers"`
}

// Lane is one of a provider's lanes.
type Lane struct {
	Concurrency int `json:"concurrency"` // of each worker
	backlog.Lane
}

// Read tells how each of the providers is, in their order. It asks Redis for the
// lengths of lists only, whatever is in them.
func Read(ctx context.Context, rdb redis.UniversalClient, all []Settings, now time.Time) ([]Provider, error) {
	workers, err := worker.Workers(ctx, rdb)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range all {
		for _, lane := range tasks.Lanes() {
			names = append(names, tasks.Queues(s.Name, lane, s.Queues)...)
		}
	}
	queues, err := backlog.ReadAll(ctx, rdb, now, names...)
	if err != nil {
		return nil, err
	}
	out := make([]Provider, 0, len(all))
	for _, s := range all {
		p := Provider{
			Name: s.Name, On: s.Off == "", Off: s.Off, BaseURL: s.BaseURL, Timeout: s.Timeout.String(),
			RateLimit: s.RateLimit, Breaker: SumBreakers(workers, s.Name), Lanes: map[string]Lane{},
		}
		for _, lane := range tasks.Lanes() {
			p.Lanes[string(lane)] = Lane{s.Concurrency[lane], backlog.LaneOf(queues, s.Name, lane)}
		}
		out = append(out, p)
	}
	return out, nil
}

// SumBreakers sums up what the workers tell of a provider's breaker.
func SumBreakers(workers []worker.Presence, provider string) Breaker {
	out := Breaker{State: BreakerUnknown, Workers: map[string]worker.BreakerPresence{}}
	rank := map[string]int{BreakerUnknown: 0, worker.BreakerClosed: 1, worker.BreakerHalfOpen: 2, worker.BreakerOpen: 3}
	for _, w := range workers {
		b, ok := w.Breakers[provider]
		if !ok {
			continue
		}
		out.Workers[w.ID] = b
		if rank[b.State] > rank[out.State] {
			out.State = b.State
		}
		if b.OpenUntil.After(out.OpenUntil) {
			out.OpenUntil = b.OpenUntil
		}
	}
	return out
}
